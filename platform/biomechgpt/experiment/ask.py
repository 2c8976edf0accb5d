"""Asks a model about recordings: one row for each recording and question, as CSV, Parquet and a page.

Needs no Ray. `workers` spreads the recordings over a Ray cluster.
"""

import base64
import io
import logging
from collections.abc import Iterator
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Literal

import jinja2
import pandas as pd
from pydantic import Field, field_validator

from biomechgpt.answering.library import COLUMNS, Model, Recording, find_model, read_all
from biomechgpt.cohort.annotations import participants_of
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.evaluation import answers_table
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import ANNOTATIONS, participant_by_place
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings

logger = logging.getLogger("biomechgpt")


class AskSettings(Settings):
    """Settings of `biomechgpt answer`."""

    recordings: str
    """A recording's file, or a folder of recordings (path or URI)."""
    model: str = "demo"
    """URI of the model, or a folder of results; `demo` is the model of `make demo`."""
    tasks: list[str] | Literal["all"] = "all"
    """Names of the tasks to ask; all tasks about one movement by default."""
    output: str = "results/answers.csv"
    """Table to write (CSV). A Parquet file and a page with joint curves are written beside it."""
    workers: int = Field(0, ge=0)
    """Ray actors that answer at once, each with the model; 0: this process alone, without Ray."""
    readers: ReaderSettings = ReaderSettings()
    """How recordings are read."""
    quality: QualitySettings = QualitySettings()
    """Limits beyond which a recording is refused."""

    @field_validator("tasks", mode="after")
    @classmethod
    def _all(cls, tasks: list[str] | Literal["all"]) -> list[str] | Literal["all"]:
        """`--tasks all` comes from the command line as a list of one name."""
        return "all" if tasks == ["all"] else tasks


def run_ask(settings: AskSettings) -> str:
    """Write the table; returns its path. A recording that cannot be used is a row with the reason.

    Raises InputError for an unknown model or task, for a path without any recording, and if the table cannot be
    written.
    """
    if not settings.output.endswith(".csv"):
        raise InputError(f"output: expected a file that ends in .csv, found {settings.output}")
    # What can be refused is refused before the model is loaded.
    settings = settings.model_copy(update={"model": find_model(settings.model)})
    storage.require_writable(settings.output)
    base = settings.output.removesuffix(".csv")
    if storage.exists(f"{base}.parquet") and answers_table.is_one(f"{base}.parquet"):
        raise InputError(
            f"output: {base}.parquet is the table of a report and would be overwritten: give another name"
        )
    own = {storage.absolute(f"{base}{suffix}") for suffix in (".csv", ".parquet", ".html")}
    files = [(name, uri) for name, uri in _files(settings.recordings) if storage.absolute(uri) not in own]
    people = _participants(settings.recordings, [name for name, _ in files])
    asked = [{"name": name, "uri": uri, "participant": people[name]} for name, uri in files]
    rows: list[dict[str, Any]] = []
    pictures: dict[str, str | None] = {}
    model = ""
    for one in _on_ray(settings, asked) if settings.workers else _here(settings, asked):
        rows += one["rows"]
        pictures |= one["pictures"]
        model = one["model"]
        for name, picture in one["pictures"].items():
            why = next((row["note"] for row in one["rows"] if row["file"] == name), "")
            logger.info("%s: %s", name, why if picture is None else "answered")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    storage.write_bytes(settings.output, table.to_csv(index=False).encode())
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    storage.write_bytes(f"{base}.parquet", buffer.getvalue())
    storage.write_bytes(f"{base}.html", _page(table, pictures, model).encode())
    return settings.output


class _Asker:
    """Answers about one recording after the other. Holds the model, so that it is loaded once."""

    def __init__(self, settings: AskSettings) -> None:
        self.settings = settings
        self.model = Model(settings.model)
        self.tasks = list(self.model.tasks) if settings.tasks == "all" else list(settings.tasks)
        if unknown := [name for name in self.tasks if name not in self.model.tasks]:
            raise InputError(f"tasks: expected some of {sorted(self.model.tasks)}, found {unknown}")

    def __call__(self, one: dict[str, Any]) -> dict[str, Any]:
        base = "; the base model is a local stand-in" if self.model.is_stand_in else ""
        rows: list[dict[str, Any]] = []
        pictures: dict[str, str | None] = {}
        # An archive, such as an OpenCap session, holds several recordings.
        for name, recording in self._recordings(one).items():
            if isinstance(recording, InputError):
                unread = {"file": name, "participant": one["participant"], "status": "unreadable"}
                rows.append(unread | {"note": str(recording)})
                pictures[name] = None
            else:
                rows += self.model.ask_all(recording, self.tasks).rows()
                pictures[name] = _picture(recording)
        model = f"trained on {self.model.provenance} data{base}"
        return {"model": model, "rows": rows, "pictures": pictures}

    def _recordings(self, one: dict[str, Any]) -> dict[str, Recording | InputError]:
        try:
            return read_all(
                one["uri"],
                participant=one["participant"],
                reading=self.settings.readers,
                quality=self.settings.quality,
                name=one["name"],
                rate_hz=self.model.rate_hz,
            )
        except InputError as error:
            return {one["name"]: error}
        except Exception as error:  # one unreadable file must not stop nineteen good ones
            logger.debug("%s", one["name"], exc_info=True)
            why = f"{one['name']}: cannot be read: {type(error).__name__}: {error}"
            return {one["name"]: InputError(why)}


def _here(settings: AskSettings, asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    asker = _Asker(settings)
    for one in asked:
        yield asker(one)


def _on_ray(settings: AskSettings, asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same in Ray Data's actors; results come in the order of the recordings."""
    import pickle

    import ray

    from biomechgpt.core import cluster

    class Worker(_Asker):
        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return {"result": pickle.dumps(super().__call__(row))}

    cluster.connect()
    data = ray.data.from_items(asked, override_num_blocks=max(1, min(len(asked), 4 * settings.workers)))
    answered = data.map(
        Worker,  # type: ignore[arg-type]  # Ray makes the actors from a class
        fn_constructor_args=(settings,),
        compute=ray.data.ActorPoolStrategy(size=min(settings.workers, len(asked))),
    )
    for row in answered.iter_rows():
        yield pickle.loads(row["result"])  # noqa: S301 by this job


def _files(path: str) -> list[tuple[str, str]]:
    """(name, URI) of a file, or of every file below a folder that may be a recording."""
    names = storage.list_files(path)
    if not names and not storage.exists(path):
        raise InputError(
            f"{path}: expected a recording or a folder of recordings, found no such file or folder"
        )
    if names == [""]:  # list_files gives an empty name for a path that is a file
        return [(PurePosixPath(path).name, path)]

    def is_likely(name: str) -> bool:
        uri = storage.join(path, name)
        return readers.is_likely(name, lambda: storage.read_head(uri, readers.HEAD_BYTES))

    likely = [name for name in sorted(names) if is_likely(name) and PurePosixPath(name).name != ANNOTATIONS]
    # A session's markers are the same trials as its joint angles.
    found = [(name, storage.join(path, name)) for name in readers.without_markers_of_trials(likely)]
    if not found:
        raise InputError(f"{path}: expected a recording or a folder of recordings, found nothing")
    return found


def _participants(folder: str, names: list[str]) -> dict[str, str]:
    """{recording: its participant}, by annotations.csv, else by the first folder, else by the file's name."""
    known: dict[str, str] = {}
    table = storage.join(folder, ANNOTATIONS)
    if storage.list_files(folder) != [""] and storage.exists(table):
        try:
            known = participants_of(ANNOTATIONS, storage.read_bytes(table), names)
        except InputError as error:
            logger.warning("%s; participants are named by folders", error)
    return {name: known.get(name) or participant_by_place(name) for name in names}


def _picture(recording: Recording) -> str:
    """Joint curves as a base64 PNG."""
    from biomechgpt.motion import plots

    figure = plots.curves_figure(
        recording.angles_rad, recording.pelvis, recording.rate_hz, recording.joint_mask
    )
    return base64.b64encode(plots.png(figure, dpi=60)).decode()


def _page(table: pd.DataFrame, pictures: dict[str, str | None], model: str) -> str:
    """The answers and joint curves of all recordings as one page."""
    template = resources.files("biomechgpt.experiment").joinpath("answers.html.j2").read_text()
    cells = table.astype(object).where(table.notna(), None)
    return (
        jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            recordings=[
                {"name": name, "rows": rows.to_dict("records"), "picture": pictures.get(str(name))}
                for name, rows in cells.groupby("file", sort=False)
            ],
            model=model,
        )
    )
