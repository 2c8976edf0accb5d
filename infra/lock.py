"""Write the lock of an image: every library with its version and the hash of its file, for Python 3.11 on x86_64.

    python infra/lock.py cpu [OPTIONS OF PIP] > infra/locks/cpu.txt

Versions are those of infra/requirements.lock. `make lock` calls this for both variants, cpu and cuda.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# XGBoost has a package without CUDA.
REPLACED = {"cpu": {"xgboost": "xgboost-cpu"}, "cuda": {}}
# XGBoost's NCCL (CUDA 12) and torch's (CUDA 13) are one file. XGBoost trains over torch's.
LEFT_OUT = {"nvidia-nccl-cu12"}


def requirements(variant: str) -> list[str]:
    """The requirements of an image, in pip's format."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    # pip builds deepspeed from source. Its build tools are locked too, or pip would fetch them without hashes.
    needed += ["setuptools", "wheel"]
    for name, other in REPLACED[variant].items():
        needed = [other + line.removeprefix(name) if line.startswith(f"{name}>") else line for line in needed]
    return needed


def locked(variant: str, options: list[str]) -> list[str]:
    """A line for each library: name==version --hash=sha256:..."""
    with tempfile.TemporaryDirectory() as folder:
        report, wanted, versions = (Path(folder) / name for name in ("report.json", "wanted", "versions"))
        wanted.write_text("\n".join(requirements(variant)))
        versions.write_text((ROOT / "infra/requirements.lock").read_text())
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--report", str(report), "--constraint", str(versions), "--requirement", str(wanted)]
        subprocess.run([*command, *options], check=True)
        found = json.loads(report.read_text())["install"]
    lines = [
        f"{item['metadata']['name'].lower()}=={item['metadata']['version']} "
        f"--hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}"
        for item in found
    ]
    return sorted(line for line in lines if line.split("==")[0] not in LEFT_OUT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant", choices=REPLACED)
    options, of_pip = parser.parse_known_args()
    print(f"# Libraries of the image for {options.variant}, Python 3.11 on x86_64. Renew: make lock")
    print("\n".join(locked(options.variant, of_pip)))


if __name__ == "__main__":
    main()
