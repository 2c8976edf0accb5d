"""The images: what their locks hold, and a build of them that answers a recording."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT
from real_recordings import SHIPPED

INFRA = ROOT / "infra"
VARIANTS = ("cpu", "cuda")
LARGEST_CPU_BYTES = 2.5e9


def lines(variant):
    text = (INFRA / f"locks/{variant}.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def versions(variant):
    """{name: version} of a lock; names as PyPI compares them, and versions without a variant such as +cpu."""
    pairs = [line.split()[0].split("==") for line in lines(variant)]
    return {re.sub(r"[-_.]+", "-", name).lower(): version.split("+")[0] for name, version in pairs}


def needed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    return {re.split(r"[\[<>=;]", line)[0].lower() for line in wanted}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_library_of_an_image_has_a_version_and_a_hash(variant):
    assert all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines(variant))
    found = versions(variant)
    names = {"xgboost-cpu" if variant == "cpu" and name == "xgboost" else name for name in needed()}
    assert names <= found.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_have_the_versions_that_are_tested(variant):
    pairs = [line.split("==") for line in (INFRA / "requirements.lock").read_text().splitlines()[1:]]
    tested = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}
    differ = {
        name: (version, tested[name])
        for name, version in versions(variant).items()
        if tested.get(name, version) != version
    }
    assert not differ


def test_the_lock_without_cuda_has_none_and_the_other_has_one_nccl():
    assert not [name for name in versions("cpu") if name.startswith("nvidia-") or name == "triton"]
    assert [name for name in versions("cuda") if "nccl" in name] == ["nvidia-nccl-cu13"]
    assert any(line.startswith("torch==") and "+cpu " in line for line in lines("cpu"))


def test_hadolint_finds_nothing():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    found = subprocess.run([hadolint, INFRA / "Dockerfile"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


# --- A build, on a Debian base, with buildah


def run(*command, timeout=1800):
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=timeout
    )
    assert result.returncode == 0, f"{command[0]}: {result.stdout[-2000:]} {result.stderr[-4000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """`buildah` with a store of its own; skips where an image cannot be built."""
    for program in ("buildah", "mmdebstrap"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if os.getuid() != 0:
        pytest.skip("needs root, to make a Debian base")
    store = tmp_path_factory.mktemp("images")
    options = ("--root", store / "root", "--runroot", store / "run", "--storage-driver", "overlay")
    yield lambda *command: run("buildah", *options, *command)
    subprocess.run(["buildah", *map(str, options), "rm", "--all"], capture_output=True, check=False)
    subprocess.run(
        ["buildah", *map(str, options), "rmi", "--all", "--force"], capture_output=True, check=False
    )


@pytest.fixture(scope="module")
def images(buildah, tmp_path_factory):
    """Names of the images for CPUs, by stage: serve and train."""
    folder = tmp_path_factory.mktemp("base")
    wheels = folder / "wheels"
    # pip gets the files here, where it knows its indexes, and checks their hashes in the image again.
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes")
    run(*pip, "--no-build-isolation", "--dest", wheels, "--requirement", INFRA / "locks/cpu.txt")
    packages = "--include=python3,python3-venv,ca-certificates"
    run("mmdebstrap", "--variant=minbase", packages, "bookworm", folder / "base.tar")
    base = buildah("from", "scratch").strip()
    buildah("add", base, folder / "base.tar", "/")
    buildah("commit", "--quiet", base, "debian-with-python")
    (folder / "base.tar").unlink()
    for stage in ("serve", "train"):
        buildah(
            "build", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never", "--target", stage,
            "--build-arg", "BASE_IMAGE=localhost/debian-with-python", "--build-arg", "VARIANT=cpu",
            "--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/wheels",
            "--build-arg", "REVISION=0123abc",
            "--volume", f"{wheels}:/wheels:ro", "--file", INFRA / "Dockerfile",
            "--tag", f"biomechgpt-{stage}", ROOT,
        )  # fmt: skip
    return {stage: f"localhost/biomechgpt-{stage}" for stage in ("serve", "train")}


@pytest.mark.slow
@pytest.mark.xdist_group("images")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("base", ["text"], indirect=True, scope="module")
def test_an_image_answers_a_recording_and_holds_what_it_should(buildah, images, bundle, tmp_path):
    for stage, image in images.items():
        description = json.loads(buildah("inspect", "--type", "image", image))
        config = description["OCIv1"]["config"]
        assert config["User"] == "1000:100"
        assert config["Labels"]["org.opencontainers.image.revision"] == "0123abc"
        container = buildah("from", "--pull-never", image).strip()
        inside = Path(buildah("mount", container).strip())
        held = [path for path in inside.glob("opt/venv/**/*.so*") if not path.is_symlink()]
        assert not [path for path in held if re.search(r"cuda|cudart|cublas|nccl", path.name)]
        size = int(run("du", "--summarize", "--bytes", inside).split()[0])
        print(f"{stage}: {size / 1e9:.2f} GB")
        assert size < LARGEST_CPU_BYTES
        libraries = {path.name for path in (inside / "opt/venv/lib").glob("python*/site-packages/*")}
        tools = {"deepspeed", "datasets", "optuna", "xgboost"}
        assert (tools & libraries) == (tools if stage == "train" else set())
        listed = json.loads((inside / "opt/sbom.cdx.json").read_text())
        named = {component["name"] for component in listed["components"]}
        assert {"torch", "ray", "pydantic"} <= named
        assert ("deepspeed" in named) == (stage == "train")
        # Nothing is needed but the model: none of the artifacts that it was made from.
        shared = tmp_path / stage
        shared.mkdir()
        model = Path(bundle[1].uri)
        # An artifact's folder has its fingerprint's name.
        shutil.copytree(model, shared / "model" / model.name)
        shutil.copy(next(SHIPPED.rglob("*walk*.mot")), shared / "walk.mot")
        shared.chmod(0o777)
        said = buildah(
            "run", "--isolation", "chroot", "--volume", f"{shared}:/shared", container, "--",
            "biomechgpt", "answer", "/shared/walk.mot", "--model", f"/shared/model/{model.name}",
            "--output", "/shared/answers.csv",
        )  # fmt: skip
        assert "walking_speed" in (shared / "answers.csv").read_text(), said
        buildah("umount", container)
