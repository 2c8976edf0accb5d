"""Integrity by default: what is read is what was published, or an error names the file."""

import os
import shutil

import pytest

from biomechgpt.core import artifact, cache, storage
from biomechgpt.core.settings import InputError

FILES = {"a.bin": b"0" * 1000, "model/weights.safetensors": b"1" * 1000}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("bucket")


def make(root, kind="thing", inputs=None):
    def build(uri):
        for name, content in FILES.items():
            storage.write_bytes(storage.join(uri, name), content)
        return {}

    return artifact.make(kind, 1, {}, inputs or {}, build, root, provenance="synthetic")


def flip(uri):
    content = bytearray(storage.read_bytes(uri))
    content[len(content) // 2] ^= 1
    storage.write_bytes(uri, bytes(content))


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("remembered", [True, False])
def test_a_flipped_byte_is_an_error_that_names_the_file(root, name, remembered, own_cache):
    made = make(root)
    if not remembered:
        shutil.rmtree(own_cache)
    flip(made.path(name))
    for use in (lambda: artifact.load(made.uri), lambda: make(root)):
        with pytest.raises(InputError, match=f"{made.uri}: file '{name}' is altered"):
            use()


def test_a_missing_file_is_named(root):
    made = make(root)
    storage.remove(made.path("a.bin"))
    with pytest.raises(InputError, match=r"file 'a.bin' is missing"):
        artifact.load(made.uri)


def test_an_input_is_checked_too(root):
    made = make(root, "model", {"tokens": make(root)})
    flip(made.input("tokens").path("a.bin"))
    with pytest.raises(InputError, match=r"'a.bin' is altered"):
        made.input("tokens")


def test_the_fingerprint_of_a_manifest_is_that_of_its_folder(root):
    made = make(root)
    manifest = storage.read_json(made.path(artifact.MANIFEST))
    storage.write_json(made.path(artifact.MANIFEST), manifest | {"fingerprint": "0" * 16})
    for use in (lambda: artifact.load(made.uri), lambda: make(root)):
        with pytest.raises(InputError, match=f"expected fingerprint {made.fingerprint}.* found 0000"):
            use()
    storage.write_bytes(made.path(artifact.MANIFEST), b'{"kind": ')
    with pytest.raises(InputError, match=r"manifest.json: expected a manifest, found a damaged file"):
        make(root)


def test_unchanged_files_are_read_once(root, monkeypatch):
    made, read = make(root), []
    sha256 = storage.sha256
    monkeypatch.setattr(storage, "sha256", lambda uri: read.append(uri) or sha256(uri))
    artifact.load(made.uri)
    assert read == []  # they were read when they were published
    artifact.load(made.uri, verify=True)
    assert len(read) == 2


def test_a_damaged_download_is_fetched_again_and_a_damaged_original_is_an_error(bucket):
    made = make(bucket)
    copy = artifact.local_copy(made.path("model"))
    flip(str(copy / "weights.safetensors"))
    assert (artifact.local_copy(made.path("model")) / "weights.safetensors").read_bytes() == b"1" * 1000
    flip(made.path("model/weights.safetensors"))
    cache.remove(copy)
    with pytest.raises(InputError, match=f"{made.path('model')}: file 'weights.safetensors' is altered"):
        artifact.local_copy(made.path("model"))


def test_downloads_of_two_servers_are_kept_apart(bucket, monkeypatch):
    made = make(bucket)
    first = cache.download(made.uri)
    assert cache.download(made.uri) == first
    assert sorted(storage.list_files(str(first))) == ["a.bin", "manifest.json", "model/weights.safetensors"]
    fetched = []
    monkeypatch.setattr(
        cache, "_fetch", lambda uri, target: fetched.append(uri) or target.mkdir(parents=True)
    )
    assert cache.download(made.uri) == first
    monkeypatch.setattr(storage, "endpoint", lambda: "http://another")
    assert cache.download(made.uri) != first
    assert fetched == [made.uri]


def test_the_oldest_downloads_are_removed_above_the_size(bucket, monkeypatch, own_cache):
    made = make(bucket)
    paths = [cache.download(made.path(name)) for name in FILES]
    monkeypatch.setenv(cache.SIZE_GB, "2e-6")  # 2000 bytes: there is no room for the manifest
    cache.download(made.path("manifest.json"))
    assert all(path.exists() for path in paths)  # in use
    os.utime(paths[1].parent, (1, 1))
    cache.remove(cache.download(made.path("manifest.json")))
    cache.download(made.path("manifest.json"))
    assert [path.exists() for path in paths] == [True, False]


def test_the_cache_is_its_users_own(tmp_path, monkeypatch):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv(cache.FOLDER, str(folder))
    assert cache.folder().stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.setenv(cache.FOLDER, str(link))
    with pytest.raises(InputError, match="expected a folder of this user, found another's"):
        cache.folder()
    monkeypatch.setenv(cache.FOLDER, str(folder))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InputError, match="expected a folder of this user, found another's"):
        cache.folder()


def test_temporary_files_never_enter_a_manifest(root):
    def build(uri):
        storage.write_bytes(storage.join(uri, "a.bin"), b"a")
        storage.write_bytes(storage.join(uri, f"part/{storage.TEMPORARY}b.bin"), b"half")
        return {}

    made = artifact.make("thing", 2, {}, {}, build, root, provenance="synthetic")
    assert list(made.manifest["files"]) == ["a.bin"]
    assert storage.list_files(made.uri) == ["a.bin", "manifest.json"]


def test_a_full_disk_leaves_nothing_that_fills_it(tmp_path, monkeypatch):
    def build(uri):
        storage.write_bytes(storage.join(uri, "a.bin"), b"a")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        artifact.make("thing", 3, {}, {}, build, str(tmp_path / "root"), provenance="synthetic")
    assert storage.list_files(str(tmp_path / "root")) == []
