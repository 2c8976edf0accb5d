"""The embedded default: a simulated cohort of participants with latent traits, and what they do.

Every label is a cause or a consequence of how the body moves; nothing else of a trial (its identifier, its
place in the files, how long a walk is recorded) knows of labels. It shows that the program works: nothing
learned from it holds for people. Knows nothing about splits or files.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from biomechgpt.cohort.annotations import KINDS
from biomechgpt.cohort.simulator.activities import ACTIVITIES, Manner
from biomechgpt.cohort.simulator.impairments import DEVICES, IMPAIRMENTS
from biomechgpt.cohort.simulator.movement import (
    Body,
    joint,
    pelvis,
    play,
    speed_m_s,
    step_lengths_m,
    typical,
    wander,
)
from biomechgpt.settings import Settings
from biomechgpt.skeleton import HIGH_RAD, LOW_RAD, N_JOINTS, TRACKED
from biomechgpt.trial import Trial

COLUMNS = KINDS
"""Annotations of a simulated trial."""

_GROUPS = {"none": 0.46, "LLPU": 0.16, "stroke": 0.15, "SCI": 0.11, "TBI": 0.12}
_DEVICES = {  # none, cane, walker, crutches, orthosis; mild and severe
    "none": ((0.95, 0.05, 0.0, 0.0, 0.0), (0.95, 0.05, 0.0, 0.0, 0.0)),
    "LLPU": ((0.85, 0.13, 0.0, 0.02, 0.0), (0.45, 0.30, 0.10, 0.15, 0.0)),
    "stroke": ((0.55, 0.25, 0.0, 0.0, 0.20), (0.15, 0.35, 0.20, 0.0, 0.30)),
    "SCI": ((0.35, 0.15, 0.10, 0.20, 0.20), (0.05, 0.10, 0.40, 0.30, 0.15)),
    "TBI": ((0.80, 0.12, 0.08, 0.0, 0.0), (0.40, 0.25, 0.30, 0.05, 0.0)),
}
_SLOWING = {"none": 0.0, "LLPU": 0.16, "stroke": 0.34, "SCI": 0.36, "TBI": 0.2}
_DEVICE_PACE = {"none": 1.0, "cane": 0.93, "walker": 0.82, "crutches": 0.88, "orthosis": 0.97}


class SimulatorSettings(Settings):
    """How large a cohort is simulated."""

    participants: int = Field(150, ge=8)
    trials_per_participant: int = Field(10, ge=1)
    seed: int = Field(0, ge=0)
    longest_s: float = Field(30.0, ge=10, description="a recording stops here, whatever is still being done")
    noise_deg: float = Field(
        1.2, ge=0, description="of markerless motion capture, standard deviation a joint"
    )


@dataclass(frozen=True)
class Participant:
    """Who somebody is, and the kinds of trial they do. group is a diagnosis or "none"."""

    name: str
    number: int
    group: str
    severity: float
    side: str
    device: str
    age: float
    sex: str
    falls: str | None
    unsteady: float
    kinds: tuple[str, ...]

    def traits(self) -> dict[str, str | float | None]:
        """The annotations that hold for all of a participant's trials."""
        impaired = self.group != "none"
        return {
            "impaired": "yes" if impaired else "no",
            "diagnosis": self.group if impaired else None,
            "assistive_device": self.device,
            "falls_history": self.falls,
            "age": self.age,
            "sex": self.sex,
        }

    def labels(self) -> frozenset[str]:
        """What is known of them, to be spread over the splits."""
        traits = {f"{k}={v}" for k, v in self.traits().items() if isinstance(v, str)}
        return frozenset(traits | {f"kind={kind}" for kind in self.kinds})


def participants(settings: SimulatorSettings) -> list[Participant]:
    """The cohort's people. Groups and kinds of trial have their exact shares, shuffled."""
    rng = np.random.default_rng(settings.seed)
    count = settings.participants
    groups = _shares(rng, _GROUPS, count)
    kinds = _shares(
        rng, {k: share for k, (_, share) in ACTIVITIES.items()}, count * settings.trials_per_participant
    )
    names = [f"S{code:06x}" for code in rng.choice(2**24, count, replace=False)]
    people = []
    for i in range(count):
        severity = float(0.25 + 0.75 * rng.beta(2.0, 2.0)) if groups[i] != "none" else 0.0
        mild, severe = (np.array(p) for p in _DEVICES[groups[i]])
        device = str(rng.choice(list(DEVICES), p=(1 - severity) * mild + severity * severe))
        unsteady = 0.12 + 0.3 * severity * (groups[i] != "TBI") + 0.85 * severity * (groups[i] == "TBI")
        unsteady += 0.25 * rng.beta(1.5, 4)
        fell = rng.random() < 1 / (1 + np.exp(-14 * (severity + 0.5 * unsteady - 0.84)))
        own = kinds[i * settings.trials_per_participant : (i + 1) * settings.trials_per_participant]
        people.append(
            Participant(
                name=names[i],
                number=i,
                group=groups[i],
                severity=severity,
                side="r" if rng.random() < 0.5 else "l",
                device=device,
                age=float(round(rng.uniform(20, 82))),
                sex="female" if rng.random() < 0.5 else "male",
                falls=("yes" if fell else "no") if groups[i] == "LLPU" else None,
                unsteady=float(unsteady),
                kinds=tuple(own),
            )
        )
    return people


def _shares(rng: np.random.Generator, shares: dict[str, float], count: int) -> list[str]:
    """`count` names in their exact shares (every name at least once where there is room), shuffled."""
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    at = (np.arange(count) + 0.5) / count
    return [list(shares)[k] for k in rng.permutation(np.searchsorted(ends, at))]


def body_of(person: Participant, rng: np.random.Generator) -> Body:
    """A person's tables: the textbook's, made theirs by style, age, impairment and device."""
    tall = rng.normal(1.63 if person.sex == "female" else 1.76, 0.06)
    old = max(person.age - 55, 0) / 25
    base = typical(0.53 * float(tall))
    # Style: every joint a little larger or smaller, elsewhere in its range, and a little late.
    gain = 1 + 0.1 * np.clip(rng.standard_normal(N_JOINTS), -2, 2)
    offset = 2.4 * rng.standard_normal(N_JOINTS)
    stand, cycle = base.stand + offset, base.stand + offset + gain * (base.cycle - base.stand)
    swing = 1 + 0.35 * rng.standard_normal()
    for side in "rl":
        i = joint("arm_flex", side)
        cycle[:, i] = stand[i] + max(swing, 0.15) * (1 - 0.2 * old) * (cycle[:, i] - stand[i])
    sit = base.sit + 1.5 * offset + 4 * rng.standard_normal(N_JOINTS)
    bent = -6 * old
    for posture in (stand, sit, cycle):
        posture[..., joint("lumbar_extension")] += bent
        posture[..., joint("neck_extension")] -= bent / 2
    body = Body(cycle, stand, sit, base.leg_m)
    if person.side == "l":
        body = body.mirrored()
    if person.group != "none":
        body = IMPAIRMENTS[person.group](body, person.severity)
    body = DEVICES[person.device](body)
    if person.side == "l":
        body = body.mirrored()
    # Knees and elbows stop at straight, whatever the tables say.
    for table in (body.cycle, body.stand, body.sit):
        for side in "rl":
            k, e = joint("knee_angle", side), joint("elbow_flex", side)
            table[..., k] = np.minimum(table[..., k], 3.0)
            table[..., e] = np.maximum(table[..., e], 0.0)
    return body


def trials(settings: SimulatorSettings, person: Participant, rate_hz: float) -> list[Trial]:
    """All of a person's trials, the same however many others there are and wherever they are made."""
    rng = np.random.default_rng([settings.seed, 1, person.number])
    body = body_of(person, rng)
    old = max(person.age - 55, 0) / 25
    slowed = (1 - _SLOWING[person.group] * person.severity) * (1 - 0.1 * old) * _DEVICE_PACE[person.device]
    usual_hz = float(rng.normal(0.96 if person.sex == "female" else 0.9, 0.07)) * slowed**0.6
    usual_size = float(rng.normal(1.0, 0.08)) * slowed**0.5
    result = []
    for kind in person.kinds:
        size = usual_size * float(rng.normal(1, 0.07))
        stride_hz = usual_hz * float(rng.normal(1, 0.06))
        manner = Manner(
            stride_hz=stride_hz,
            size=size,
            speed_m_s=max(speed_m_s(body, stride_hz, size), 0.25),
            unsteady=person.unsteady,
            slow=float(rng.normal(1, 0.06)) * (1 + 0.25 * old) / slowed,
        )
        result.append(_trial(rng, settings, person, body, manner, kind, rate_hz))
    return result


def _trial(
    rng: np.random.Generator,
    settings: SimulatorSettings,
    person: Participant,
    body: Body,
    manner: Manner,
    kind: str,
    rate_hz: float,
) -> Trial:
    act = ACTIVITIES[kind][0](rng, manner, rate_hz)
    drive, frames = act.drive, len(act.speed)
    # Unsteadiness: strides differ in size, trunk and arms sway.
    drive.size[:] *= 1 + 0.25 * manner.unsteady * wander(rng, frames, 1, 0.5, rate_hz)[:, 0]
    angles = play(body, drive, rate_hz)
    sway = wander(rng, frames, 7, 0.35, rate_hz) * manner.unsteady
    for k, name in enumerate(("lumbar_extension", "lumbar_bending", "lumbar_rotation", "neck_bending",
                              "neck_rotation", "arm_add_r", "arm_add_l")):  # fmt: skip
        angles[:, joint(name)] += 4.0 * sway[:, k]
    angles += settings.noise_deg * rng.standard_normal(N_JOINTS)  # a session's calibration
    angles += settings.noise_deg * wander(rng, frames, N_JOINTS, 0.06, rate_hz)
    angles[:, ~TRACKED] = 0.0
    radians = np.clip(np.radians(angles), LOW_RAD, HIGH_RAD)
    kept = slice(round(settings.longest_s * rate_hz))
    cut = frames > round(settings.longest_s * rate_hz)
    notes: dict[str, str | float | None] = {name: None for name in COLUMNS}
    notes |= person.traits() | {"activity": "overground walking" if kind == "walkway" else kind}
    if kind == "walkway":
        notes |= measure_walk(body, drive.strides[kept], drive.size[kept], rate_hz, rng)
    elif kind in ("TUG", "FSST") and act.test_s is not None and not cut:
        # A test whose end was not recorded has no time that its motion could tell.
        notes[f"{kind.lower()}_time"] = round(act.test_s, 2)
    return Trial(
        trial=f"{rng.integers(2**48):012x}",
        participant=person.name,
        angles_rad=radians[kept].astype(np.float32),
        pelvis=pelvis(radians, act.speed, act.turning, rate_hz)[kept],
        frame_rate_hz=rate_hz,
        data="synthetic",
        annotations=notes,
    )


def measure_walk(
    body: Body, strides: np.ndarray, size: np.ndarray, rate_hz: float, rng: np.random.Generator
) -> dict[str, str | float | None]:
    """What an instrumented walkway reads: steps a minute and metres a second as played, within 1 %."""
    stride_hz = float(strides[-1] - strides[0]) * rate_hz / (len(strides) - 1)
    played = body.stand + float(size.mean()) * (body.cycle - body.stand)
    speed = stride_hz * sum(step_lengths_m(played, body.leg_m))
    error = 1 + 0.01 * rng.standard_normal(2)
    return {"cadence": round(120 * stride_hz * error[0], 1), "walking_speed": round(speed * error[1], 3)}
