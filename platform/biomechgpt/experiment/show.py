"""Draws a recording, a trial of a cohort, a codebook page or an evaluation's report, by its path or URI."""

import logging

import numpy as np
import pandas as pd
from pydantic import Field

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import MANIFEST, Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion.resampling import resample
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings

logger = logging.getLogger("biomechgpt")


class ShowSettings(Settings):
    """Settings of `biomechgpt show`."""

    target: str
    """A recording's file, an answers.parquet, or the URI of a cohort, tokens or evaluation artifact."""
    trial: str | None = None
    """Name of the cohort's trial to draw."""
    output: str = "results"
    """Folder for pages; for pictures a folder or a path that ends in .png."""
    frame_rate_hz: float = Field(30.0, ge=10)
    """Rate that a recording is resampled to."""
    readers: ReaderSettings = ReaderSettings()
    """How a recording is read."""


def run_show(settings: ShowSettings) -> str:
    """Write the picture or page; returns its path. Raises InputError for a target that cannot be shown."""
    if settings.target.endswith(".parquet"):
        return _report(settings, settings.target)
    if not storage.exists(storage.join(settings.target, MANIFEST)):
        return _picture(settings, _draw_recording(settings))
    target = artifact.load(settings.target)
    if target.kind == "cohort":
        return _picture(settings, _draw_trial(settings, target))
    if target.kind == "tokens":
        from biomechgpt.evaluation.codebook import write_codebook

        return write_codebook(target, settings.output)
    if target.kind == "evaluation":
        from biomechgpt.evaluation import answers_table

        return _report(settings, target.path(answers_table.FILE))
    raise InputError(
        f"{target.uri}: expected a recording, a cohort, tokens or an evaluation, found a {target.kind}"
    )


def _picture(settings: ShowSettings, png: bytes) -> str:
    """Write a picture to `settings.output`; returns its path."""
    path = settings.output
    if not path.endswith(".png"):
        path = storage.join(path, "trial.png")
    storage.write_bytes(path, png)
    return path


def _report(settings: ShowSettings, answers: str) -> str:
    """Write an evaluation's report from its answers.parquet alone, without a model or a cluster."""
    from biomechgpt.evaluation.report import summary, write_report

    logger.info(summary(write_report(answers, settings.output)))
    return storage.join(settings.output, "report.html")


def _draw_recording(settings: ShowSettings) -> bytes:
    """A picture of a recording. Missing values are interpolated; joints that were not recorded are 0."""
    from biomechgpt.motion import plots

    recording = readers.read(settings.target, settings.readers)
    missing = int(np.isnan(recording.angles_rad).sum())
    filled = pd.DataFrame(recording.angles_rad).interpolate(limit_direction="both").fillna(0).to_numpy()
    angles_rad, pelvis = resample(recording.time_s, filled, recording.pelvis, settings.frame_rate_hz)
    return plots.png(
        plots.trial_figure(
            angles_rad,
            pelvis,
            settings.frame_rate_hz,
            title=settings.target,
            how=recording.import_notes + (f"; {missing} missing values drawn through" if missing else ""),
            joint_mask=recording.joint_mask,
        )
    )


def _draw_trial(settings: ShowSettings, cohort: Artifact) -> bytes:
    """A picture of the cohort's trial `settings.trial`."""
    from biomechgpt.cohort import Cohort
    from biomechgpt.motion import plots

    if settings.trial is None:
        raise InputError(f"{cohort.uri}: expected --trial NAME, the trial of this cohort to draw")
    trial = next(Cohort(cohort).trials(names=[settings.trial]), None)
    if trial is None:
        raise InputError(f"{cohort.uri}: expected a trial {settings.trial!r}, found none of that name")
    annotations = [f"{name} {value}" for name, value in trial.annotations.items() if value is not None]
    return plots.png(
        plots.trial_figure(
            trial.angles_rad,
            trial.pelvis,
            trial.frame_rate_hz,
            title=f"{trial.trial} ({trial.provenance}), participant {trial.participant}",
            how=", ".join(annotations),
            joint_mask=trial.joint_mask,
        )
    )
