"""Quality control of a recording: what is wrong with it, where, and which setting decides.

A recording with a problem is kept out, never repaired in silence. Only short gaps are ever filled, if the settings
allow it, and the trial then says so. Signs of a person's impairment (a foot that drags, a stiff knee, an arm that
does not swing) are no problem, and neither is a joint that a model locks. Knows nothing about file formats,
annotations or participants.
"""

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.quality import body, gaps, joints
from biomechgpt.recordings.quality.duplicates import content_hash, find_duplicates
from biomechgpt.recordings.quality.gaps import fill_gaps
from biomechgpt.recordings.quality.problem import Problem, QualitySettings
from biomechgpt.recordings.readers import Recording

__all__ = [
    "Problem",
    "QualitySettings",
    "accept",
    "content_hash",
    "fill_gaps",
    "find_duplicates",
    "find_problems",
]


def accept(
    name: str, recording: Recording, settings: QualitySettings, declared_rate_hz: float | None = None
) -> tuple[Recording, str | None]:
    """The recording with its short gaps filled, and what was filled ("2 gaps interpolated, ..."; None: nothing).

    name: the file, in messages.
    declared_rate_hz: the annotated frame rate; the one that the recording states is checked as well.
    Raises InputError with every problem.
    """
    problems = find_problems(recording, settings, declared_rate_hz)
    if problems:
        raise InputError(f"{name}: " + "; ".join(map(str, problems)))
    return fill_gaps(recording)


def find_problems(
    recording: Recording, settings: QualitySettings, declared_rate_hz: float | None = None
) -> list[Problem]:
    """All problems of a recording.

    Gaps that `interpolate_gaps_s` allows are no problem. Only recorded joints are checked; untracked joints, which
    no tokenizer sees, only for gaps.
    """
    problems = [
        *gaps.gaps(recording, settings.interpolate_gaps_s),
        *gaps.duration(recording.time_s, settings.min_duration_s),
        *gaps.rate(recording, declared_rate_hz, settings.rate_tolerance),
    ]
    if len(recording.time_s) < 3:
        return problems
    # The other checks need a value in every frame. What is filled here is not kept.
    filled, _ = fill_gaps(recording)
    spikes = list(joints.spikes(filled, settings))
    spiked = {problem.joint for problem in spikes}
    joined = list(body.joined_trials(filled))
    return [
        *problems,
        *joined,
        *body.unit_of_pelvis(filled),
        *(() if joined else body.pelvis_speed(filled, settings.max_pelvis_speed_m_s)),
        *body.stride_rate(filled, settings.max_stride_hz),
        *joints.movement(filled, settings.min_movement_deg),
        *joints.ranges(filled, settings.range_margin_deg),
        *spikes,
        # A spike is also an impossible speed: it is reported once.
        *(problem for problem in joints.speeds(filled, settings) if problem.joint not in spiked),
        *joints.frozen(filled, settings.frozen_s),
        *body.sides(filled, settings.max_side_correlation),
        *(() if settings.max_side_correlation == 1 else body.knee_sides(filled)),
        *body.residuals(recording, settings),
    ]
