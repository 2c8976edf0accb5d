"""Each settings field moves the artifacts that depend on it, and no other. Nothing is trained here."""

from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

from biomechgpt.cohort import CohortInfo
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, Settings, load, override, read_yaml
from biomechgpt.experiment.pipeline import fingerprints, with_seed
from biomechgpt.experiment.settings import PipelineSettings
from biomechgpt.language import pretrain
from biomechgpt.questions import tasks
from conftest import ROOT

ANSWERING = ["calibration", "model", "answers", "evaluation"]
DOWNSTREAM = {
    "cohort": ["tokenizer", "tokens", "questions", "base", "adapter", *ANSWERING],
    "tokenizer": ["tokens", "base", "adapter", *ANSWERING],
    "tokens": ["base", "adapter", *ANSWERING],
    "questions": ["adapter", *ANSWERING],
    "base": ["adapter", *ANSWERING],
    "adapter": ANSWERING,
    "calibration": ["model", "answers", "evaluation"],
    "model": ["answers", "evaluation"],
    "answers": ["evaluation"],
    "evaluation": [],
}
"""{artifact: those that are made from it, directly or not}."""

FIRST: dict[str, str | None] = {
    "cohort.*": "cohort",
    # A simulated cohort reads no files. RECORDED has these for a cohort of recordings.
    **dict.fromkeys(("cohort.readers.*", "cohort.quality.*", "cohort.strict", "cohort.plausible"), None),
    "tokenizer.*": "tokenizer",
    "tokens.*": "tokens",
    "questions.*": "questions",
    "language.base.*": "base",
    "language.finetune.*": "adapter",
    # Recomputes activations to save memory.
    "language.finetune.gradient_checkpointing": None,
    # Permission, not a way to compute.
    "language.base.accept_gemma_terms": None,
    "answers.templates": "calibration",
    "answers.views": "calibration",
    "answers.splits": "answers",
    "answers.method": "answers",
    "evaluation.*": "evaluation",
    # Where and how fast a step runs, not its result.
    **dict.fromkeys(("*.workers", "tokens.batch_size", "answers.batch_size", "*.packing"), None),
    **dict.fromkeys(
        (
            f"*.training.{name}"
            for name in ("checkpoint_every", "zero_stage", "offload", "max_failures", "accelerator")
        ),
        None,
    ),
    "root": None,
    "least_people": None,
    "output": None,
}
"""{pattern of a field: the first artifact that it moves, or None}. The last pattern that fits a field decides."""

RECORDED: dict[str, str | None] = {
    "cohort.readers.*": "cohort",
    "cohort.quality.*": "cohort",
    # A strict cohort refuses what another one quarantines.
    "cohort.strict": "cohort",
    # Checked, then forgotten.
    "cohort.plausible": None,
    "cohort.simulator.*": None,
}
"""The same for a cohort of recordings."""

CHANGED: dict[str, Any] = {
    "evaluation.note": "read this first",
    # A task has no more participants and trials than the task that it is a part of.
    "cohort.simulator.protocol.train.impaired": [18, 94],
    "cohort.simulator.protocol.test.impaired": [4, 24],
    "cohort.plausible": {"walking_speed": [0.0, 5.0]},
    "cohort.readers.joint_map": [
        {"name": "plug_in_gait"} | read_yaml(ROOT / "configs/joint_maps/plug_in_gait.yaml")
    ],
    "cohort.splits.site_column": "lab",
    "cohort.splits.held_out": "here",
    "tokenizer.network.quantizer.kind": "residual",
    "tokenizer.network.posture_bin_deg": 6.0,
    "tokenizer.window": 128,
    "tokenizer.range_change": 0.2,
    "tokenizer.recorded_share": 0.3,
    "tokenizer.activity_balance": 0.5,
    "tokenizer.smallest_scale_deg": 20.0,
    "questions.names": ["activity", "impaired"],
    "questions.exclude": ["walking_speed"],
    "language.base.family": "llama",
    "language.finetune.max_answer_weight": 8.0,
    "language.finetune.participants": 2,
    "answers.splits": ["validation"],
    "answers.views": 1,
    "least_people": 5,
    "root": "elsewhere",
    "output": "elsewhere",
}
"""{field: another value}, where the rules of `changed` find no valid one."""

ELSEWHERE = {
    "cohort.recordings",
    "cohort.annotations",
    "cohort.cohorts",
    "cohort.prefix",
    "cohort.add_simulated",  # needs recordings
    "cohort.readers.opensim_model",
    "questions.tasks",
    "questions.measured",
    "language.base.name",
    "start",
}
"""Fields that name a file: their content decides. Tests of their own change them, here and in tests/cohort."""


def fields(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, type, value) of each field that holds no settings itself."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation, value


def changed(path: str, annotation: Any, value: Any) -> dict[str, Any]:
    """Another valid value of a field, with what it needs to be valid."""
    if path.endswith(".offload"):
        return {path: not value, path.replace("offload", "zero_stage"): 1}
    if path.endswith(".assistive_device"):
        # It lies between two other tasks of the same size.
        more = _another(path, annotation, value)
        return {path: more, path.replace("assistive_device", "activity"): more}
    return {path: _another(path, annotation, value)}


def _another(path: str, annotation: Any, value: Any) -> Any:
    if path in CHANGED:
        return CHANGED[path]
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.25
    if isinstance(value, tuple) and value:
        return [number + 1 if isinstance(number, int) else number * 0.9 for number in value]
    raise AssertionError(f"{path}: put another value than {value!r} into CHANGED")


def expected(path: str, table: dict[str, str | None]) -> set[str]:
    """The artifacts that a field has to move."""
    first = [artifact for pattern, artifact in table.items() if fnmatch(path, pattern)][-1]
    return {first, *DOWNSTREAM[first]} if first else set()


def write_annotations(uri: str, settings: Any) -> None:
    """Write the part of a cohort that fingerprints depend on beside the settings: its annotations."""
    columns = {"activity": "text", "impaired": "text", "walking_speed": "number"}
    splits = {"train": 2, "validation": 1, "test": 1}
    info = CohortInfo(
        annotations=columns, frame_rate_hz=30, participants=splits, trials=4, hours=0.1, quarantined=[]
    )
    storage.write_json(storage.join(uri, "cohort.json"), info.model_dump(mode="json"))


def fingerprints_of(settings: PipelineSettings) -> dict[str, str]:
    return fingerprints(settings, {"cohort": write_annotations})


def moved(before: PipelineSettings, after: PipelineSettings) -> set[str]:
    return differences(fingerprints_of(before), fingerprints_of(after))


def differences(old: dict[str, str], new: dict[str, str]) -> set[str]:
    """The artifacts whose fingerprints differ."""
    assert set(old) == set(DOWNSTREAM)
    return {kind for kind in old if old[kind] != new[kind]}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Make the tests fast: task files are read once, and written files need not survive a crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(tasks, "read_yaml", cache(tasks.read_yaml))
        patch.setattr("os.fsync", lambda handle: None)
        yield


TINY = load(PipelineSettings, ROOT / "configs/experiments/tiny.yaml")
FIELDS = [field for field in fields(TINY) if field[0] not in ELSEWHERE]


@pytest.fixture(scope="module")
def before(quick):
    return fingerprints_of(TINY)


@pytest.mark.parametrize(("path", "annotation", "value"), FIELDS, ids=[path for path, *_ in FIELDS])
def test_a_field_changes_the_fingerprints_that_depend_on_it_and_no_others(path, annotation, value, before):
    after = fingerprints_of(override(TINY, changed(path, annotation, value), path))
    assert differences(before, after) == expected(path, FIRST)


def test_every_pattern_of_the_table_matches_a_field():
    paths = [path for path, *_ in fields(TINY)]
    assert not [pattern for pattern in FIRST if not any(fnmatch(path, pattern) for path in paths)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Settings of a cohort of recordings. The recording itself is never parsed here."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "annotations.csv").write_text("path,participant,activity\na.mot,a,walking\n")
    (folder / "a.mot").write_text("")
    return override(TINY, {"cohort.recordings": str(folder)}, "test")


@pytest.fixture(scope="module")
def before_recorded(recorded):
    return fingerprints_of(recorded)


READING = [field for field in FIELDS if any(fnmatch(field[0], pattern) for pattern in RECORDED)]


@pytest.mark.parametrize(("path", "annotation", "value"), READING, ids=[path for path, *_ in READING])
def test_settings_of_reading_change_a_cohort_of_recordings(
    path, annotation, value, recorded, before_recorded
):
    after = fingerprints_of(override(recorded, changed(path, annotation, value), path))
    assert differences(before_recorded, after) == expected(path, RECORDED)


def test_the_content_of_a_recording_changes_the_cohort_and_its_folder_does_not(recorded, tmp_path):
    for file in Path(recorded.cohort.recordings).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    elsewhere = override(recorded, {"cohort.recordings": str(tmp_path)}, "test")
    assert moved(recorded, elsewhere) == set()
    (tmp_path / "a.mot").write_text("another")
    assert moved(recorded, elsewhere) == {"cohort", *DOWNSTREAM["cohort"]}


def test_the_content_of_an_opensim_model_changes_the_cohort_and_its_place_does_not(recorded, tmp_path):
    def with_model(name, marker):
        model = tmp_path / name
        model.write_text(
            f'<OpenSimDocument><Model name="m"><Marker name="{marker}"/></Model></OpenSimDocument>'
        )
        return override(recorded, {"cohort.readers.opensim_model": str(model)}, "test")

    one = with_model("one.osim", "RKNE")
    assert moved(recorded, one) == {"cohort", *DOWNSTREAM["cohort"]}
    assert moved(one, with_model("two.osim", "RKNE")) == set()
    assert moved(one, with_model("two.osim", "LKNE")) == {"cohort", *DOWNSTREAM["cohort"]}


def test_the_opensim_model_of_one_person_reads_nobody_else(recorded, tmp_path):
    (tmp_path / "annotations.csv").write_text("path,participant,activity\na.mot,a,walking\nb.mot,b,walking\n")
    for name in ("a.mot", "b.mot"):
        (tmp_path / name).write_text("")
    changes = {"cohort.recordings": str(tmp_path), "cohort.readers.opensim_model": str(tmp_path / "a.osim")}
    with pytest.raises(InputError, match=r"expected recordings of the one person .* found 2 people"):
        fingerprints_of(override(recorded, changes, "test"))


def test_simulated_people_beside_recordings_change_the_cohort(recorded):
    both = override(recorded, {"cohort.add_simulated": True}, "test")
    assert moved(recorded, both) == {"cohort", *DOWNSTREAM["cohort"]}


def test_another_base_model_changes_the_base(monkeypatch):
    monkeypatch.setattr(pretrain, "check", lambda settings: None)
    after = override(TINY, {"language.base.name": "google/gemma-3-1b-it"}, "test")
    assert moved(TINY, after) == {"base", *DOWNSTREAM["base"]}


def with_task(folder: Path, name: str = "activity", **changes: Any) -> PipelineSettings:
    """The tiny settings with a copy of the shipped tasks, in which `changes` are made to one task."""
    folder.mkdir()
    for source in (ROOT / "configs/tasks", ROOT / "configs/tasks_extra"):
        for file in source.glob("*.yaml"):
            task = read_yaml(file)
            (folder / file.name).write_text(
                yaml.safe_dump(task | changes if file.stem == name else task, sort_keys=False)
            )
    return override(TINY, {"questions.tasks": str(folder)}, "test")


@pytest.mark.parametrize(
    "changes", [{"paraphrases": ["What goes on?"]}, {"synonyms": {"TUG": ["chair test"]}}]
)
def test_a_paraphrase_or_synonym_changes_the_model_and_its_answers_only(tmp_path, changes):
    before = with_task(tmp_path / "before")
    after = with_task(tmp_path / "after", **changes)
    assert moved(before, after) == {"model", *DOWNSTREAM["model"]}


def test_a_template_changes_the_questions_and_the_base_that_learns_their_words(tmp_path):
    templates = read_yaml(ROOT / "configs/tasks/activity.yaml")["templates"]
    before = with_task(tmp_path / "before")
    after = with_task(tmp_path / "after", templates=[*templates, "What now?"])
    assert moved(before, after) == {"questions", "base", *DOWNSTREAM["questions"]}


def with_measured(folder: Path, **changes: Any) -> PipelineSettings:
    """The tiny settings with a copy of the measured tasks, in which `changes` are made to step_length."""
    folder.mkdir()
    for file in (ROOT / "configs/tasks_measured").glob("*.yaml"):
        task = read_yaml(file)
        (folder / file.name).write_text(
            yaml.safe_dump(task | changes if file.stem == "step_length" else task, sort_keys=False)
        )
    return override(TINY, {"questions.measured": str(folder)}, "test")


def test_measured_tasks_change_the_model_and_nothing_that_is_trained(tmp_path):
    before = with_measured(tmp_path / "before")
    assert moved(TINY, before) == set()
    templates = [f"What about {n} steps?" for n in range(8)]
    for n, changes in enumerate(({"decimals": 3}, {"templates": templates}, {"paraphrases": ["Steps?"]})):
        assert moved(before, with_measured(tmp_path / f"{n}", **changes)) == {"model", *DOWNSTREAM["model"]}
    without = override(TINY, {"questions.measured": []}, "test")
    assert moved(TINY, without) == {"model", *DOWNSTREAM["model"]}


def test_the_quantity_beside_an_answer_changes_the_model_and_nothing_that_is_trained(tmp_path):
    before = with_task(tmp_path / "before", "walking_speed")
    for n, changes in enumerate(({"tolerance": 0.4}, {"measured_as": None, "tolerance": None})):
        after = with_task(tmp_path / f"{n}", "walking_speed", **changes)
        assert moved(before, after) == {"model", *DOWNSTREAM["model"]}


@pytest.mark.parametrize("changes", [{"needs": {"min_steps": 3}}, {"answer_when": {"activity": ["FGA"]}}])
def test_when_a_question_applies_changes_the_calibration_and_nothing_that_is_trained(tmp_path, changes):
    before = with_task(tmp_path / "before", "walking_speed")
    after = with_task(tmp_path / "after", "walking_speed", **changes)
    assert moved(before, after) == {"calibration", *DOWNSTREAM["calibration"]}


def test_another_folder_with_the_same_tasks_changes_nothing(tmp_path):
    assert moved(with_task(tmp_path / "first"), with_task(tmp_path / "second")) == set()


def test_another_seed_changes_questions_and_adapter_but_not_tokens():
    assert moved(TINY, with_seed(TINY, 7)) == {"questions", *DOWNSTREAM["questions"]}
