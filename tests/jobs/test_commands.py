"""The console command: its list, its texts of --help, and what it refuses."""

import subprocess
import sys

import pytest

from biomechgpt import commands
from biomechgpt.commands import COMMANDS, HELP, help_text, main
from biomechgpt.core import job
from conftest import ROOT

HEAVY = ("ray", "torch", "numpy", "pydantic", "transformers")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_current_and_complete(name):
    text = (HELP / f"{name}.txt").read_text()
    assert text == help_text(name), "run `make texts`"
    assert "--config" in text
    assert f"biomechgpt {COMMANDS[name].example}" in text


def test_help_lists_the_options_of_every_kind():
    lines = [line.strip() for line in help_text("train").splitlines()]
    quantizer = "--tokenizer.network.quantizer"
    assert f"{quantizer}.kind ema|residual|body_parts|fsq  (default: ema)" in lines
    options = [line.split()[0] for line in lines if line.startswith(f"{quantizer}.")]
    assert {f"{quantizer}.{name}" for name in ("codebook_size", "num_quantizers", "levels")} <= set(options)
    assert len(options) == len(set(options))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_description(name):
    options = job.options(commands.load_named(COMMANDS[name].settings))
    assert [option for option, field in options if not field.description] == []


@pytest.mark.parametrize("script", ["pipeline", "sweep", "answer"])
def test_help_loads_no_library(script):
    code = (
        f"import runpy, sys; sys.argv = ['{script}', '--help']; "
        f"runpy.run_path('jobs/{script}.py', run_name='__main__'); "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "tasks"),
    [
        (["my folder", "--tasks", "all"], "all"),
        (["--tasks", "all", "my folder"], "all"),
        (["--tasks=activity,cadence", "my folder"], ["activity", "cadence"]),
        (["--output", "a.csv", "my folder", "--tasks", "activity"], ["activity"]),
    ],
)
def test_the_folder_stands_first_or_last(arguments, tasks):
    settings = commands.read_settings("answer", arguments)
    assert (settings.recordings, settings.tasks) == ("my folder", tasks)


def test_without_a_subcommand_the_list_is_printed(capsys):
    main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_an_unknown_subcommand_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["walk"])
    assert stopped.value.code == 2
    assert "found 'walk'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["check", "--no_such", "1"], ["check", "--root"], ["train", "--until", "x"]]
)
def test_wrong_options_are_one_plain_error(arguments, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3


def test_keys_prints_a_new_key_that_a_shell_reads(capsys):
    printed = []
    for _ in range(2):
        main(["keys"])
        printed.append(capsys.readouterr().out)
    assert printed[0] != printed[1]
    shell = subprocess.run(
        ["sh", "-c", f'{printed[0]}\nprintf %s "$BIOMECHGPT_API_KEY"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(shell.stdout) == 32
    assert shell.stdout in printed[0]


def test_the_first_argument_names_what_is_shown(monkeypatch):
    seen = {}
    monkeypatch.setattr("biomechgpt.core.job.run_job", lambda *_, **options: seen.update(options))
    commands.run("show", ["walk.mot", "--output", "a.png"])
    assert seen["arguments"] == ["--target=walk.mot", "--output", "a.png"]
