"""A model as a library: load it, read a recording, ask.

    import biomechgpt as bg

    model = bg.load("results/demo")
    walk = bg.read("walk.mot")
    print(model.ask(walk, "walking_speed").text)
    table = model.ask_all(walk).to_frame()
    walk.plot().savefig("walk.png")

Needs no Ray and no server. `biomechgpt answer` is made of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from biomechgpt.answering import measured
from biomechgpt.answering.answer import Answer
from biomechgpt.answering.described import described
from biomechgpt.answering.status import unlike_sentence, withheld
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import MANIFEST
from biomechgpt.core.settings import InputError
from biomechgpt.motion import quantities
from biomechgpt.motion.skeleton import NAMES, anatomical_name
from biomechgpt.questions.tasks import DescriptionTask, MeasuredTask, Tasks, askable
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DEMO = "results/demo"
"""Where `make demo` writes."""
RATE_HZ = 30.0
"""Frame rate of a recording that was not read for a particular model."""
COLUMNS = (
    "file",
    "participant",
    "duration_s",
    "task",
    "status",
    "answer",
    "value",
    "unit",
    "probability",
    "prediction_set",
    "low",
    "high",
    "promised",
    "measured",
    "note",
)
"""Columns of a table of answers.

status: `answered`, `does_not_apply`, `unlike`, `uncertain`, `refused` (see `Answer.status`), or `unreadable`.
answer: the answer in words; empty unless the status is `answered`.
value, unit: a number that was answered or measured.
probability: of the label that was answered.
promised: whether set or interval hold the truth at the stated coverage (`Answer.coverage_guaranteed`).
measured: the quantity as it was measured from the joint angles, with its place in the recording.
note: why there is no answer, what an answer supposes, which joints the file lacks, and what was odd about it.
"""


@dataclass(frozen=True)
class Recording:
    """A recording that passed quality control.

    name: its file.
    angles_rad: (T, 34) joint angles in radians, at `rate_hz`.
    pelvis: (T, 7) position in metres, and unit quaternion (w, x, y, z).
    rate_hz: frames per second.
    joint_mask: (34,) bool, True where the joint was recorded.
    provenance: `recorded`, or `synthetic` if the file says so.
    notes: how the file was read, and which gaps were filled.
    participant: who it is of; empty if not known.
    source: the file's content as the reader found it.
    """

    name: str
    angles_rad: np.ndarray
    pelvis: np.ndarray
    rate_hz: float
    joint_mask: np.ndarray
    provenance: str
    notes: str
    participant: str
    source: readers.Recording = field(repr=False)
    quality: QualitySettings = field(repr=False)

    @property
    def duration_s(self) -> float:
        return len(self.angles_rad) / self.rate_hz

    @property
    def absent_joints(self) -> list[str]:
        """The joints that the file does not have, by their anatomical names."""
        return [
            anatomical_name(name) for name, there in zip(NAMES, self.joint_mask, strict=True) if not there
        ]

    def at(self, rate_hz: float) -> "Recording":
        """The same recording at another frame rate."""
        if rate_hz == self.rate_hz:
            return self
        return _prepared(self.name, self.source, self.quality, rate_hz, self.participant)

    def measure(self) -> dict[str, list[quantities.Measurement]]:
        """{quantity: its measurements}, from the joint angles and the pelvis alone."""
        movement = quantities.movement(self.angles_rad, self.pelvis, self.rate_hz, self.joint_mask)
        return quantities.measure_all(movement)

    def plot(self) -> "Figure":
        """Stick figures and joint curves, of a walk over the gait cycle with norms. `figure.savefig` writes it."""
        from biomechgpt.motion import plots

        return plots.trial_figure(
            self.angles_rad,
            self.pelvis,
            self.rate_hz,
            title=self.name,
            how=self.notes,
            joint_mask=self.joint_mask,
        )


def read(
    path: str,
    *,
    participant: str = "",
    reading: ReaderSettings | None = None,
    quality: QualitySettings | None = None,
    name: str | None = None,
    rate_hz: float = RATE_HZ,
) -> Recording:
    """The recording in a file (path or URI). Joints that it lacks are masked.

    participant: who it is of.
    reading: settings of the readers, where a file says too little about itself.
    quality: limits beyond which a recording is refused.
    name: what messages call the file; its path by default.
    Raises InputError for a file that is no recording, with what it is, for one that holds several (`read_all` reads
    each), and for one that quality control refuses.
    """
    name = name or path
    source = readers.read(path, reading or ReaderSettings(), name)
    return _prepared(name, source, quality or QualitySettings(), rate_hz, participant)


def read_all(
    path: str,
    *,
    participant: str = "",
    reading: ReaderSettings | None = None,
    quality: QualitySettings | None = None,
    name: str | None = None,
    rate_hz: float = RATE_HZ,
) -> dict[str, Recording | InputError]:
    """{name: recording, or why it cannot be used} of every recording in a file or archive (path or URI).

    A trial in an archive is called `session.zip/walk`. The arguments are those of `read`.
    Raises InputError if there is no such file.
    """
    name = name or path
    result: dict[str, Recording | InputError] = {}
    for each, source in readers.read_each(path, reading or ReaderSettings(), name).items():
        try:
            if isinstance(source, InputError):
                raise source
            result[each] = _prepared(each, source, quality or QualitySettings(), rate_hz, participant)
        except InputError as error:
            result[each] = error
    return result


def _prepared(
    name: str, source: readers.Recording, quality: QualitySettings, rate_hz: float, participant: str
) -> Recording:
    angles_rad, pelvis, repairs = prepare(name, source, quality, rate_hz)
    return Recording(
        name=name,
        angles_rad=angles_rad,
        pelvis=pelvis,
        rate_hz=rate_hz,
        joint_mask=source.joint_mask,
        provenance=source.provenance,
        notes="; ".join(text for text in (source.import_notes, repairs) if text),
        participant=participant,
        source=source,
        quality=quality,
    )


@dataclass(frozen=True)
class Answers(Mapping[str, Answer]):
    """The answers about one recording, by task.

    recording: what they are about.
    tasks: the tasks that were asked.
    found: {task: answer}, as it is shown: without a value unless its status is `answered`.
    """

    recording: Recording
    tasks: Tasks
    found: dict[str, Answer]

    def __getitem__(self, task: str) -> Answer:
        return self.found[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def rows(self) -> list[dict[str, Any]]:
        """A row of `COLUMNS` for each task."""
        return [_row(self.recording, self.tasks, name, answer) for name, answer in self.found.items()]

    def to_frame(self) -> "pd.DataFrame":
        """A table with a row for each task and the columns `COLUMNS`."""
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=list(COLUMNS))


def _row(recording: Recording, tasks: Tasks, name: str, answer: Answer) -> dict[str, Any]:
    answered, task = answer.status == "answered", tasks[name]
    value, unit = None, ""
    if answered and isinstance(task, MeasuredTask):
        values = [m for m in answer.measured if m.value is not None]
        value, unit = (values[0].value, values[0].unit) if len(values) == 1 else (None, "")
    elif answered:
        parsed = task.parse(answer.text)
        value, unit = (parsed, task.answer_unit or "") if isinstance(parsed, float) else (None, "")
    said = (f"supposes {answer.condition}" if answer.condition else "") if answered else answer.text
    return {
        "file": recording.name,
        "participant": recording.participant,
        "duration_s": round(recording.duration_s, 2),
        "task": name,
        "status": answer.status,
        "answer": answer.text if answered else None,
        "value": value,
        "unit": unit,
        "probability": answer.probabilities[0] if answer.probabilities else None,
        "prediction_set": "; ".join(answer.prediction_set),
        "low": answer.low,
        "high": answer.high,
        "promised": answer.coverage_guaranteed,
        "measured": measured.in_words(answer.measured),
        "note": "; ".join(text for text in (said, *recording.source.remarks) if text),
    }


class Model:
    """A model that answers questions about recordings. `load` makes one."""

    def __init__(self, uri: str) -> None:
        """uri: of a model artifact. Raises InputError if it is none."""
        from biomechgpt.answering.answerer import Answerer
        from biomechgpt.answering.bundle import ModelBundle
        from biomechgpt.language.tiny_model import is_stand_in
        from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

        made = artifact.load(uri, "model")
        self.uri = made.uri
        self.provenance = made.provenance
        """Provenance of the training data: `synthetic`, `recorded` or both."""
        bundle = ModelBundle(uri)
        self.tasks = askable(bundle.tasks, 1)
        """{name: task} of all questions about one recording."""
        self._answerer = Answerer.load(uri)
        self._tokenizer = MotionTokenizer.load(bundle.motion_tokenizer)
        self.is_stand_in = is_stand_in(self._answerer.info.base)
        """Whether the base language model is the local stand-in, which cannot write text."""

    def __repr__(self) -> str:
        base = ", local stand-in" if self.is_stand_in else ""
        return f"<model {self.uri}: {len(self.tasks)} tasks, {self.provenance}{base}>"

    @property
    def rate_hz(self) -> float:
        """Frames per second that the model's tokenizer reads."""
        return float(self._tokenizer.frame_rate_hz)

    def ask(self, recording: Recording, task: str) -> Answer:
        """The answer to one task. Raises InputError for a task that the model does not have."""
        return self.ask_all(recording, [task])[task]

    def ask_all(self, recording: Recording, tasks: Sequence[str] | None = None) -> Answers:
        """The answers to these tasks, by default to all. Raises InputError for an unknown task."""
        from biomechgpt.prompts.encoding import Query

        names = list(self.tasks) if tasks is None else list(tasks)
        if unknown := [name for name in names if name not in self.tasks]:
            raise InputError(f"tasks: expected some of {sorted(self.tasks)}, found {unknown}")
        here = recording.at(self.rate_hz)
        (motion,) = self._answerer.analyse(
            self._tokenizer, [here.angles_rad], [here.joint_mask], here.provenance
        )
        movement = quantities.movement(here.angles_rad, here.pelvis, here.rate_hz, here.joint_mask)
        analysis = measured.analyse(movement)
        asked = {name: self.tasks[name] for name in names}
        scored = [task for task in asked.values() if not isinstance(task, MeasuredTask)]
        queries = [Query([motion], "single", task.name, task.templates[0]) for task in scored]
        found = self._answerer.answer(queries, writes_text=not self.is_stand_in)
        by_model: dict[str, Answer] = {}
        for task, answer in zip(scored, found, strict=True):
            if isinstance(task, DescriptionTask) and self.is_stand_in:
                by_model[task.name] = described(answer, measured.parameters(analysis))
            else:
                by_model[task.name] = measured.beside(answer, task, analysis)
        shown = {
            name: measured.answer(task, analysis) if isinstance(task, MeasuredTask) else by_model[name]
            for name, task in asked.items()
        }
        return Answers(
            here,
            asked,
            {name: withheld(a, unlike_sentence(a.unlike, self.provenance)) for name, a in shown.items()},
        )


def load(where: str = "demo") -> Model:
    """A model by the URI of its artifact, or by the folder of results that a run wrote (`demo`: of `make demo`)."""
    return Model(find_model(where))


def find_model(where: str) -> str:
    """URI of the model artifact at `where`: itself, or the one that a folder of results names.

    A folder of results may have been moved together with its artifacts.
    Raises InputError if there is neither.
    """
    if storage.exists(storage.join(where, MANIFEST)):
        return where
    results = DEMO if where == "demo" else where
    metrics = storage.join(results, "metrics.json")
    if not storage.exists(metrics):
        raise InputError(
            f"{where}: expected a model, or a folder of results with metrics.json, found neither"
            + (" (run `make demo`, or name a model)" if where == "demo" else "")
        )
    model = storage.read_json(metrics)["model"]
    uri = str(model["uri"])
    beside = [storage.beside(results, path) for path in ("../artifacts", "artifacts")]
    if model.get("path"):  # ends in .../artifacts/model/FINGERPRINT
        beside.insert(0, storage.beside(results, f"{model['path']}/../.."))
    place = artifact.find(uri, *beside)
    if storage.exists(storage.join(place, MANIFEST)):
        return place
    raise InputError(
        f"{metrics}: expected the model {model['fingerprint']} at {uri} or beside the results, found none. "
        "Copy the folder of artifacts along, or give the model's own folder"
    )
