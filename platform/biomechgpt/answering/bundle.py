"""The model artifact: a bundle of all that answering and serving need, and the parts an answerer is built from.

`base/`, `adapter/` (unless all weights were trained), `motion_tokenizer/`, `tasks.json`, `calibration.json`,
`reference_movements.safetensors`, `bundle.json`. Making one copies files; it trains and computes nothing. Knows
nothing about torch or Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.numpy import load, save

from biomechgpt.answering.calibration import Calibration
from biomechgpt.answering.ood import ReferenceMovements
from biomechgpt.answering.settings import ScoringSettings
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, validate
from biomechgpt.language import adapter as adapters
from biomechgpt.language.adapter import AdapterInfo
from biomechgpt.questions.dataset import read_tasks
from biomechgpt.questions.tasks import MeasuredTask, RegressionTask, Task, Tasks
from biomechgpt.tokenizer.motion_tokenizer import require_same_tokenizer

VERSION = 13

INFO = "bundle.json"
TASKS = "tasks.json"
CALIBRATION = "calibration.json"
REFERENCE = "reference_movements.safetensors"
BASE, ADAPTER, MOTION_TOKENIZER = "base", "adapter", "motion_tokenizer"


class BundleInfo(AdapterInfo):
    """Metadata of a bundle: those of its adapter, and how it scores answers."""

    scoring: ScoringSettings
    """Templates and mirror images that an answer is averaged over; the calibration holds for these."""


@dataclass(frozen=True)
class ModelParts:
    """All that an answerer is built from. Small and picklable: the weights are named by URI.

    base: URI of the checkpoint's folder.
    adapter: URI of the LoRA weights' folder, or None where all weights were trained.
    info: how prompts are written, and how answers are scored.
    tasks: the questions whose answers are scored.
    calibration: an empty one gives uncalibrated answers.
    reference: training movements that recordings are compared with; None: they are not compared.
    """

    base: str
    adapter: str | None
    info: BundleInfo
    tasks: Tasks
    calibration: Calibration
    reference: ReferenceMovements | None = None


class ModelBundle:
    """The metadata of a finished model artifact, read once.

    uri: that of the artifact, or of a copy of its folder.
    """

    def __init__(self, uri: str) -> None:
        self.uri = storage.absolute(uri)
        path = storage.join(self.uri, INFO)
        self.info = validate(BundleInfo, storage.read_json(path), path)
        self.tasks = read_tasks(self.uri)
        path = storage.join(self.uri, CALIBRATION)
        self.calibration = validate(Calibration, storage.read_json(path), path)
        self.reference = read_reference(storage.join(self.uri, REFERENCE))

    @property
    def motion_tokenizer(self) -> str:
        """URI of the motion tokenizer."""
        return storage.join(self.uri, MOTION_TOKENIZER)

    @property
    def parts(self) -> ModelParts:
        """What an answerer of this model is built from."""
        base, weights = storage.join(self.uri, BASE), storage.join(self.uri, ADAPTER)
        return ModelParts(
            base,
            weights if self.info.adapter else None,
            self.info,
            self.tasks,
            self.calibration,
            self.reference,
        )


def write_reference(uri: str, reference: ReferenceMovements) -> None:
    """Write training movements that recordings are compared with."""
    storage.write_bytes(uri, save({"features": reference.features, "scale": reference.scale}))


def read_reference(uri: str) -> ReferenceMovements | None:
    """The movements of `write_reference`; None if there is no such file."""
    if not storage.exists(uri):
        return None
    arrays = load(storage.read_bytes(uri))
    return ReferenceMovements(arrays["features"], arrays["scale"])


def uncalibrated(base: Artifact, adapter: Artifact, tasks: Tasks, scoring: ScoringSettings) -> ModelParts:
    """The parts of a model that was fine-tuned but not yet calibrated. tasks: `trained_tasks`."""
    info = adapters.read_info(adapter)
    return ModelParts(
        _checkpoint(base, adapter, info),
        adapter.path(adapters.WEIGHTS) if info.adapter else None,
        BundleInfo(**info.model_dump(), scoring=scoring),
        tasks,
        Calibration(),
    )


def make_model(
    base: Artifact, adapter: Artifact, tokenizer: Artifact, calibration: Artifact, tasks: Tasks, root: str
) -> Artifact:
    """The model artifact: a copy of these parts.

    tasks: full definitions; those that were not trained, because the cohort has no annotation of them, are left
    out. So are measured tasks whose quantity is shown beside the answers of a trained task.
    Raises InputError for a part of another tokenizer or adapter, and for a trained task that is missing.
    """
    require_same_tokenizer(base, tokenizer)
    _require_made_from(adapter, base)
    _require_made_from(calibration, adapter)
    questions, tokens = adapter.input("questions"), adapter.input("tokens")
    definitions = bundled_tasks(questions.manifest["settings"]["tasks"], tasks, adapter.uri)
    content = [task.model_dump(mode="json") for task in definitions]

    def build(uri: str) -> dict[str, Any]:
        info = adapters.read_info(adapter)
        _copy(_checkpoint(base, adapter, info), uri, BASE)
        if info.adapter:
            _copy(adapter.path(adapters.WEIGHTS), uri, ADAPTER)
        _copy(tokenizer.uri, uri, MOTION_TOKENIZER)
        scoring = calibration.manifest["settings"]["scoring"]
        bundled = BundleInfo(**info.model_dump(), scoring=validate(ScoringSettings, scoring, calibration.uri))
        storage.write_json(storage.join(uri, INFO), bundled.model_dump(mode="json"))
        storage.write_json(storage.join(uri, TASKS), content)
        storage.write_json(storage.join(uri, CALIBRATION), calibration.read_json(CALIBRATION))
        if REFERENCE in calibration.manifest["files"]:
            storage.write_bytes(storage.join(uri, REFERENCE), storage.read_bytes(calibration.path(REFERENCE)))
        return {**adapter.metrics, "calibration": calibration.metrics}

    inputs: Mapping[str, Artifact] = {
        "base": base,
        "adapter": adapter,
        "tokenizer": tokenizer,
        "calibration": calibration,
        # The adapter's own inputs: they move no fingerprint, and a model is asked its own cohort's questions.
        "questions": questions,
        "tokens": tokens,
    }
    return artifact.make("model", VERSION, {"tasks": content}, inputs, build, root)


def bundled_tasks(trained: Sequence[Mapping[str, Any]], tasks: Tasks, adapter: str) -> list[Task]:
    """The tasks of a bundle: those that were trained, and the measured ones that none of these shows.

    trained: training fields of each trained task. tasks: full definitions. adapter: its URI, in messages.
    Raises InputError for a trained task that is missing or differs.
    """
    learned = trained_tasks(trained, tasks, adapter)
    shown = {task.measured_as for task in learned if isinstance(task, RegressionTask)}
    measured = [t for t in tasks.values() if isinstance(t, MeasuredTask) and t.quantity not in shown]
    return [*learned, *measured]


def trained_tasks(trained: Sequence[Mapping[str, Any]], tasks: Tasks, adapter: str) -> list[Task]:
    """The full definitions of the tasks that were trained. Arguments and errors: as `bundled_tasks`."""
    learned: list[Task] = []
    for fields in trained:
        task = tasks.get(fields["name"])
        if task is None or task.training_fields() != fields:
            raise InputError(
                f"tasks: expected {fields['name']!r} as {adapter} was trained on it, "
                f"found {'no such task' if task is None else 'another definition'}"
            )
        learned.append(task)
    return learned


def _require_made_from(derived: Artifact, source: Artifact) -> None:
    """Raise InputError if an artifact was made from another one than `source`."""
    fingerprint = derived.manifest["inputs"][source.kind]["fingerprint"]
    if fingerprint != source.fingerprint:
        raise InputError(
            f"{derived.uri}: expected one made from {source.kind} {source.fingerprint}, found one of {fingerprint}"
        )


def _checkpoint(base: Artifact, adapter: Artifact, info: AdapterInfo) -> str:
    """URI of the whole checkpoint below the LoRA weights, or of the one that training made of it."""
    return (base if info.adapter else adapter).path(adapters.MODEL)


def _copy(source: str, uri: str, name: str) -> None:
    storage.upload(artifact.local_copy(source), storage.join(uri, name))
