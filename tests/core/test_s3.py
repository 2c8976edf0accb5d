"""Artifacts on S3: published, read and refused as on a local disk. The server is moto's."""

import pytest

import biomechgpt as bg
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment import ask
from opensim_files import mot, walk


def test_artifact_is_published_reused_and_checked(bucket, tmp_path):
    built = []

    def build(uri):
        built.append(uri)
        storage.write_bytes(storage.join(uri, "part/a.txt"), b"angles")
        return {"trials": 1}

    first = artifact.make("cohort", 1, {"seed": 0}, {}, build, bucket, provenance="synthetic")
    again = artifact.make("cohort", 1, {"seed": 0}, {}, build, bucket, provenance="synthetic")
    assert len(built) == 1
    assert again.manifest == first.manifest
    assert (artifact.local_copy(first.uri, tmp_path) / "part/a.txt").read_bytes() == b"angles"
    assert artifact.local_copy(first.path("part/a.txt"), tmp_path / "one").read_bytes() == b"angles"
    storage.write_bytes(first.path("part/a.txt"), b"altered")
    with pytest.raises(InputError, match=r"part/a.txt.*altered"):
        artifact.load(first.uri, verify=True)


def test_an_unfinished_artifact_does_not_exist(bucket):
    folders = []

    def dies(uri):
        folders.append(uri)
        storage.write_bytes(storage.join(uri, "a.txt"), b"half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        artifact.make("cohort", 1, {"seed": 1}, {}, dies, bucket)
    for uri in (folders[0], artifact.published(folders[0])):
        with pytest.raises(InputError, match="no finished artifact"):
            artifact.load(uri)
    assert storage.list_files(bucket) == []


def test_read_head_returns_the_first_bytes(bucket):
    for name, content in (("long", b"0123456789"), ("short", b"01"), ("empty", b"")):
        uri = storage.join(bucket, name)
        storage.write_bytes(uri, content)
        assert storage.read_head(uri, 4) == content[:4]


def test_recordings_in_a_bucket_are_found_and_read(bucket):
    """What `biomechgpt answer s3://...` asks about, and whose recordings they are."""
    storage.write_bytes(storage.join(bucket, "Anna/marche à pied.mot"), mot(walk(4.0)).encode())
    storage.write_bytes(storage.join(bucket, "Anna/no suffix"), mot(walk(4.0)).encode())
    storage.write_bytes(storage.join(bucket, "notes.txt"), b"hello")
    storage.write_bytes(storage.join(bucket, "annotations.csv"), b"path;participant\nAnna/no suffix;P1\n")
    files = dict(ask._files(bucket))
    assert list(files) == ["Anna/marche à pied.mot", "Anna/no suffix"]
    assert ask._participants(bucket, list(files)) == {
        "Anna/marche à pied.mot": "Anna",
        "Anna/no suffix": "P1",
    }
    for name, uri in files.items():
        assert bg.read(uri, name=name).duration_s == pytest.approx(4, abs=0.1)
    storage.require_writable(storage.join(bucket, "out/answers.csv"))
