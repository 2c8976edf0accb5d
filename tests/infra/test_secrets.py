"""No file, log or message has a secret: keys, tokens and passwords stay where the user put them."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from biomechgpt.core.logs import without_passwords
from biomechgpt.core.settings import InputError, StorageError
from conftest import ROOT

PLANTED = "planted-2f9c7a"
ENVIRONMENT = {
    name: f"{PLANTED}-{name.lower()}"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "BIOMECHGPT_API_KEY", "HF_TOKEN",
                 "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN")
}  # fmt: skip
AWAY = f"http://ward:{PLANTED}@127.0.0.1:9"
SWEEP = ["sweep", "--config", str(ROOT / "configs/experiments/sweep_tiny.yaml")]
COMMANDS = {
    "a dry run": [*SWEEP, "--dry_run", "true", "--tracking.uri", AWAY],
    "a database that nobody knows": [*SWEEP, "--study", f"nodatabase://ward:{PLANTED}@host/name"],
    "a registry that is away": [
        "promote",
        "--candidates",
        "models:/biomechgpt@champion",
        "--tracking.uri",
        AWAY,
    ],
    "a folder of recordings": ["check", "recordings"],
}


def files_with(secrets, *folders):
    """Files below the folders that have one of the secrets."""
    found = []
    for folder in folders:
        for path in Path(folder).rglob("*"):
            with suppress(FileNotFoundError):  # Ray removes files of its own
                if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
                    found.append(str(path))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_write_and_print_no_secret(name, tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    (folder / "walk.mot").write_text("no recording")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    own = {
        "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "AWS_ACCESS_KEY_ID": "ward",
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
    }  # fmt: skip
    arguments = [str(folder) if part == "recordings" else part for part in COMMANDS[name]]
    arguments += ["--root", str(tmp_path / "artifacts")] if arguments[0] == "sweep" else []
    done = subprocess.run(
        [sys.executable, "-m", "biomechgpt", *arguments],
        cwd=tmp_path, env=inherited | ENVIRONMENT | own, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert printed
    assert "Traceback" not in printed
    assert PLANTED not in printed
    assert files_with([PLANTED], tmp_path) == []


def test_a_training_run_leaves_no_secret(tiny):
    """Neither the artifacts and reports of a whole run nor Ray's logs have the server's key or Ray's token."""
    import ray

    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    tokens = [os.environ.get("RAY_AUTH_TOKEN", ""), token.read_text().strip() if token.exists() else ""]
    secrets = [os.environ["BIOMECHGPT_API_KEY"], *filter(None, tokens)]
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    assert list(logs.iterdir())
    assert files_with(secrets, tiny.root, tiny.out, logs) == []


def test_passwords_of_uris_are_not_shown():
    assert without_passwords("at https://ward:very-secret@host:5000/x.") == "at https://ward:***@host:5000/x."
    assert without_passwords("postgresql://ward:pa/ss@host/name") == "postgresql://ward:***@host/name"
    for harmless in ("s3://bucket/a:b@c", "http://127.0.0.1:8000/v1", "models:/biomechgpt@champion"):
        assert without_passwords(harmless) == harmless
    for error in (InputError, StorageError):
        assert "secret" not in str(error("postgresql://ward:secret@host/name: no answer"))
