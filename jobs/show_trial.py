"""One trial, of a cohort or straight from a file, as a picture that shows whether it was read correctly."""

import numpy as np
import pandas as pd
from pydantic import Field

from biomechgpt.cohort import Cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.motion import plots
from biomechgpt.motion.resampling import resample
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings


class Job(Settings):
    recording: str | None = Field(None, description="path or URI of a recording's file")
    cohort: str | None = Field(None, description="URI of a cohort artifact, with `trial`")
    trial: str | None = Field(None, description="name of one of the cohort's trials")
    output: str = Field("results/trial.png", description="path or URI of the PNG to write")
    frame_rate_hz: float = Field(30.0, ge=10, description="that a file's recording is resampled to")
    readers: ReaderSettings = ReaderSettings(missing_joints="neutral")


def main(settings: Job) -> str:
    picture = _of_cohort(settings) if settings.recording is None else _of_file(settings, settings.recording)
    storage.write_bytes(settings.output, picture)
    return settings.output


def _of_file(settings: Job, uri: str) -> bytes:
    recording = readers.read(uri, settings.readers)
    missing = int(np.isnan(recording.angles_rad).sum())
    whole = pd.DataFrame(recording.angles_rad).interpolate(limit_direction="both").fillna(0).to_numpy()
    angles_rad, pelvis = resample(recording.time_s, whole, recording.pelvis, settings.frame_rate_hz)
    return plots.trial_png(
        angles_rad,
        pelvis,
        settings.frame_rate_hz,
        title=uri,
        how=recording.reading + (f"; {missing} missing values drawn through" if missing else ""),
        joint_mask=recording.joint_mask,
    )


def _of_cohort(settings: Job) -> bytes:
    if settings.cohort is None or settings.trial is None:
        raise InputError("show_trial: expected `recording`, or `cohort` with `trial`, found neither")
    cohort = Cohort(artifact.load(settings.cohort, "cohort"))
    t = next(cohort.trials(names=[settings.trial]), None)
    if t is None:
        raise InputError(f"{settings.cohort}: expected a trial {settings.trial!r}, found none of that name")
    known = [f"{name} {value}" for name, value in t.annotations.items() if value is not None]
    return plots.trial_png(
        t.angles_rad,
        t.pelvis,
        t.frame_rate_hz,
        title=f"{t.trial} ({t.provenance}), participant {t.participant}",
        how=", ".join(known),
        joint_mask=t.joint_mask,
    )


if __name__ == "__main__":
    run_job(Job, main)
