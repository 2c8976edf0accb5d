"""The console command `biomechgpt`: one table of subcommands. Each script in jobs/ calls the same entry.

A subcommand is a settings model, a function that takes it, and an example. Both are named as text and imported
only when the subcommand runs. So listing the subcommands and printing a --help load no library. The texts of --help
lie in `help/`: building them needs all settings, and those take longer to import than a reader wants to wait.
`make texts` writes them. A test checks that they are current.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

HELP = Path(__file__).parent / "help"


@dataclass(frozen=True)
class Command:
    """One subcommand.

    summary: one sentence for the list of subcommands and the head of --help.
    settings: `module:class` of its settings.
    function: `module:function` that takes these settings; what it returns is printed as `artifact: ...`.
    example: arguments of a typical call.
    positional: the settings that the first arguments give when they are no options, separated by spaces.
    config: the settings file that is read when --config names none.
    report: `module:function` that turns the result into a text, which is printed before the last line.
    """

    summary: str
    settings: str
    function: str
    example: str
    positional: str | None = None
    config: str | None = None
    report: str | None = None


_STAGES = "biomechgpt.experiment.pipeline"
_STAGE_SETTINGS = "biomechgpt.experiment.settings:StageSettings"
COMMANDS: dict[str, Command] = {
    "demo": Command(
        "Run the whole path on a simulated cohort, or on DATA, and write results/demo/report.html.",
        _STAGE_SETTINGS,
        f"{_STAGES}:run_stages",
        "demo --cohort.recordings folder",
        config="configs/experiments/demo.yaml",
    ),
    "train": Command(
        "Make an experiment's artifacts, all of them or up to one stage.",
        _STAGE_SETTINGS,
        f"{_STAGES}:run_stages",
        "train --config configs/experiments/demo.yaml --until tokenizer",
    ),
    "answer": Command(
        "Ask a model about recordings and write a table of answers.",
        "biomechgpt.experiment.ask:AskSettings",
        "biomechgpt.experiment.ask:run_ask",
        "answer folder --model results/artifacts/model/FINGERPRINT --output answers.csv",
        positional="recordings",
    ),
    "check": Command(
        "Check a folder of recordings, or an experiment's settings and which of its artifacts are there.",
        "biomechgpt.experiment.folder_check:CheckSettings",
        "biomechgpt.experiment.folder_check:run_folder_check",
        "check folder",
        positional="folder",
    ),
    "new-table": Command(
        "Write an annotations.csv for a folder of recordings, to be filled in.",
        "biomechgpt.experiment.folder_check:NewTableSettings",
        "biomechgpt.experiment.folder_check:write_new_table",
        "new-table folder",
        positional="folder",
    ),
    "show": Command(
        "Draw a recording, a cohort's trial, a codebook, or an evaluation's report.",
        "biomechgpt.experiment.show:ShowSettings",
        "biomechgpt.experiment.show:run_show",
        "show walk.mot --output walk.png",
        positional="target",
    ),
    "serve": Command(
        "Serve a model to a browser and to programs on this machine.",
        "serve.main:LocalSettings",
        "serve.main:serve_model",
        "serve --port 8000",
    ),
    "keys": Command(
        "Make, list and revoke access keys of the served model.",
        "serve.keys:KeySettings",
        "serve.keys:run_keys",
        "keys add ward-7",
        positional="action name",
    ),
    "audit-log": Command(
        "Export, check or prune the served model's audit log.",
        "serve.audit_log:AuditLogSettings",
        "serve.audit_log:run_audit_log",
        "audit-log export --output audit.ndjson",
        positional="action",
    ),
    "sweep": Command(
        "Search settings and seeds with Ray Tune and Optuna on validation participants.",
        "biomechgpt.experiment.sweep:SweepSettings",
        "biomechgpt.experiment.sweep:run_sweep",
        "sweep --config configs/experiments/sweep_demo.yaml",
        report="biomechgpt.experiment.sweep:show_sweep",
    ),
    "compare": Command(
        "Compare variants over seeds in the paper's two tables.",
        "biomechgpt.experiment.compare:CompareSettings",
        "biomechgpt.experiment.compare:run_compare",
        "compare --config configs/experiments/table2.yaml",
        report="biomechgpt.experiment.compare:show_comparison",
    ),
    "audit": Command(
        "Measure how far a model can be trusted, and write a page: coverage, detection, scope, explanations.",
        "biomechgpt.evaluation.audit.settings:AuditModelSettings",
        "biomechgpt.evaluation.audit.audit:run_audit",
        "audit results/artifacts/model/FINGERPRINT",
        positional="model",
        report="biomechgpt.evaluation.audit.audit:show_audit",
    ),
    "promote": Command(
        "Make the best model of a sweep or comparison the registry's champion.",
        "biomechgpt.experiment.promote:PromoteSettings",
        "biomechgpt.experiment.promote:run_promote",
        "promote --candidates results/artifacts/comparison/FINGERPRINT",
        config="configs/promotion.yaml",
    ),
    "roll-back": Command(
        "Give the name champion back to the model that had it before.",
        "biomechgpt.experiment.promote:RollBackSettings",
        "biomechgpt.experiment.promote:run_roll_back",
        'roll-back "answers about falls are wrong"',
        positional="reason",
    ),
    "reproduce": Command(
        "Make an artifact again, with all that it was made from, and compare files and metrics.",
        "biomechgpt.experiment.reproduce:ReproduceSettings",
        "biomechgpt.experiment.reproduce:run_reproduce",
        "reproduce results/artifacts/model/FINGERPRINT",
        positional="artifact",
    ),
    "generate": Command(
        "Generate movements from descriptions, or continue given ones, as .mot files.",
        "biomechgpt.experiment.generate:GenerateMovementsSettings",
        "biomechgpt.experiment.generate:run_generate",
        "generate results/artifacts/model/FINGERPRINT",
        positional="model",
    ),
    "export": Command(
        "Export a cohort as OpenSim .mot files, or a model as one merged checkpoint.",
        "biomechgpt.experiment.export:ExportSettings",
        "biomechgpt.experiment.export:run_export",
        "export results/artifacts/model/FINGERPRINT",
        positional="artifact",
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry of the console command: `biomechgpt SUBCOMMAND ...`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(_overview())
    elif name == "--version":
        from biomechgpt import __version__

        print(__version__)
    elif name in COMMANDS:
        run(name, rest)
    else:
        print(f"biomechgpt: expected one of {', '.join(COMMANDS)}, found {name!r}", file=sys.stderr)
        raise SystemExit(2)


def run(name: str, arguments: list[str] | None = None, **fixed: str) -> None:
    """Run one subcommand; a script in jobs/ calls this.

    arguments: of the command line; by default the process's own. fixed: options that the caller has decided.
    """
    command = COMMANDS[name]
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    text = HELP / f"{name}.txt"
    if {"-h", "--help"} & set(arguments) and text.exists():
        print(text.read_text(), end="")
        return
    _give_matplotlib_a_folder()
    from biomechgpt.core.job import run_job

    run_job(
        load_named(command.settings),
        _reported(command),
        description=command.summary,
        example=f"biomechgpt {command.example}",
        arguments=_options(command, arguments, fixed),
    )


def _give_matplotlib_a_folder() -> None:
    """Without a home folder that can be written matplotlib complains, and looks for all fonts at every start."""
    if "MPLCONFIGDIR" in os.environ:
        return
    try:
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        (config / "matplotlib").mkdir(parents=True, exist_ok=True)
        if os.access(config / "matplotlib", os.W_OK):
            return
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        pass
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"biomechgpt-matplotlib-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if user == "user" or folder.stat().st_uid == user:  # not one that somebody else has put there
            os.environ["MPLCONFIGDIR"] = str(folder)


def _options(command: Command, arguments: list[str], fixed: dict[str, str]) -> list[str]:
    """The arguments with the positional one named and the default settings file added."""
    names = (command.positional or "").split()
    options: list[str] = []
    is_value = False  # of the option before: `--model URI folder` names the folder last
    for argument in arguments:
        is_option = argument.startswith("-")
        if names and not is_option and not is_value:
            options.append(f"--{names.pop(0)}={argument}")
        else:
            options.append(argument)
        is_value = is_option and "=" not in argument
    if command.config and not any(option.split("=")[0] == "--config" for option in options):
        options = ["--config", command.config, *options]
    return [*options, *(f"--{name}={value}" for name, value in fixed.items())]


def read_settings(name: str, arguments: list[str]) -> Any:
    """The settings that a subcommand would run with. Raises InputError for a wrong option or value."""
    from biomechgpt.core.job import read_settings as read

    command = COMMANDS[name]
    return read(load_named(command.settings), _options(command, arguments, {}))


def _reported(command: Command) -> Callable[[Any], Any]:
    """The subcommand's function; its result is also printed as a text if the subcommand has one.

    It is imported when it is called: wrong settings are told before torch is loaded.
    """

    def run_and_report(settings: Any) -> Any:
        result = load_named(command.function)(settings)
        if command.report:
            print(load_named(command.report)(result))
        return result

    return run_and_report


def load_named(path: str) -> Any:
    """Import the object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: biomechgpt SUBCOMMAND [options]", ""]
    lines += [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "`biomechgpt SUBCOMMAND --help` lists its options."])


def help_text(name: str) -> str:
    """The text of `biomechgpt NAME --help`, built from its settings."""
    from biomechgpt.core.job import help_text

    command = COMMANDS[name]
    return help_text(
        load_named(command.settings),
        program=f"biomechgpt {name}",
        description=command.summary,
        example=f"biomechgpt {command.example}",
        positional=command.positional,
    )


def write_help() -> None:
    """Write the text of every subcommand's --help into `help/`."""
    HELP.mkdir(exist_ok=True)
    for old in HELP.glob("*.txt"):
        old.unlink()
    for name in COMMANDS:
        (HELP / f"{name}.txt").write_text(help_text(name))


if __name__ == "__main__":
    write_help()
