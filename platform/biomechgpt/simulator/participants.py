"""The built-in default data: simulated participants with latent traits, and their trials.

Every label is a cause or a consequence of how the body moves. Nothing else in a trial depends on labels: not its
identifier, not its place in the files, not the duration of a walk. Simulated data shows that the program works;
results on it do not hold for people. Knows nothing about splits or files.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from biomechgpt.core.settings import Settings
from biomechgpt.motion import norms
from biomechgpt.motion.outcome_measures import COLUMN_KINDS, OUTCOME_MEASURES
from biomechgpt.motion.skeleton import HIGH_RAD, LOW_RAD, N_JOINTS
from biomechgpt.motion.trial import Trial
from biomechgpt.simulator.activities import ACTIVITIES, OTHERS, ActivityTrace, GaitStyle
from biomechgpt.simulator.exercises import EXERCISES, STRENUOUS
from biomechgpt.simulator.impairments import DEVICES, IMPAIRMENTS, Effects, cautious
from biomechgpt.simulator.laboratory import LaboratorySettings, record, recorded_in
from biomechgpt.simulator.movement import (
    HIP_HEIGHT,
    Body,
    animate,
    joint,
    pelvis_of,
    smooth_noise,
    stride_m,
    typical,
)
from biomechgpt.simulator.protocol import Enrolment, ProtocolSettings, enrol
from biomechgpt.simulator.variation import between_strides, on_the_ground, personal

COLUMNS = COLUMN_KINDS
"""Annotations of a simulated trial."""

_CONDITIONS = {
    "LLPU transtibial": 0.24,
    "LLPU transfemoral": 0.18,
    "stroke": 0.30,
    "SCI": 0.17,
    "TBI": 0.11,
}
"""Shares among impaired participants; the first word is the diagnosis."""
_AGES = {"none": (45, 20), "LLPU": (55, 13), "stroke": (61, 12), "SCI": (46, 14), "TBI": (40, 14)}
"""Age by diagnosis: mean, standard deviation. Half of the unimpaired participants are 65 to 90 years old
instead."""
_DEVICES = {
    "none": ((0.95, 0.04, 0.01, 0.0, 0.0), (0.45, 0.35, 0.20, 0.0, 0.0)),
    "LLPU": ((0.72, 0.22, 0.02, 0.04, 0.0), (0.35, 0.35, 0.12, 0.18, 0.0)),
    "stroke": ((0.35, 0.35, 0.04, 0.0, 0.26), (0.15, 0.35, 0.20, 0.0, 0.30)),
    "SCI": ((0.30, 0.20, 0.12, 0.20, 0.18), (0.05, 0.10, 0.40, 0.30, 0.15)),
    "TBI": ((0.70, 0.18, 0.12, 0.0, 0.0), (0.30, 0.25, 0.40, 0.05, 0.0)),
}
"""Probability of no device, cane, walker, crutches and orthosis by diagnosis, for (mild, severe) impairment."""
_SLOWER = {"stroke": 0.45, "SCI": 0.25, "TBI": 0.5}
"""Extra duration (fraction) of rising, turning and sitting down at typical severity, on top of the slower
walking."""
_SITES = ("A", "B", "C")
_TIMED = ("TUG", "FSST")
"""Kinds of trials whose time is an annotation."""
_TYPICAL = 0.625
"""Mean severity. Participants of this severity walk at the published mean speed of their condition."""


_RATE_SHARE = 0.55
"""A person who walks k times as fast takes k to this power as many steps a minute; the rest is longer steps."""
_STEP_RATE = (0.97, 0.07)
"""Mean and SD between people of the cadence at a given speed, relative to the norm. The norm's people walked 5.5 m.
Men of 18 to 49 years take 113 steps a minute, SD 11, with strides of 1.55 m, SD .15, at 1.46 m/s, SD .18 (Whittle,
Gait Analysis, 4th ed. 2007, appendix 1: 95 % limits; quoted from memory, unverified). So at one speed people differ
by 7 %."""


class SimulatorSettings(Settings):
    """The simulated study and the quality of its recordings."""

    protocol: ProtocolSettings = ProtocolSettings()
    """Numbers of participants and trials for each annotation."""
    scale: float = Field(1.0, gt=0)
    """Factor on the protocol's numbers: 0.1 simulates a tenth of the participants."""
    seed: int = Field(0, ge=0)
    """Random seed."""
    longest_s: float = Field(120.0, ge=10)
    """Recordings are cut off after this time, even in the middle of an activity."""
    duration_range_s: tuple[float, float] = (8.0, 34.0)
    """Shortest and longest recording. One of a timed test that takes longer is longer."""
    test_range_s: tuple[float, float] = (8.0, 34.0)
    """The same for the TUG and the FSST. It should be so wide that the length does not tell the measured time."""
    exercises: float = Field(0.25, ge=0, le=1)
    """Share of running, squats, jumps, stairs and the like among the trials without a measured time or speed."""
    short: float = Field(0.2, ge=0, le=1)
    """Share of walks and exercises of which one to four seconds are recorded, as on a short walkway."""
    laboratories: LaboratorySettings = LaboratorySettings()
    """How different the laboratories of the recordings are."""


@dataclass(frozen=True)
class Participant:
    """A participant's traits and the annotations collected from them.

    number: decides the participant's random numbers.
    condition: "none" or a key of IMPAIRMENTS.
    severity: severity of the condition, 0 to 1.
    frail: frailty, up to 1 for some old participants, else 0.
    side: affected side, or side of the cane.
    fell: had a fall within the last year.
    unsteady: unsteadiness, 0 to about 1.
    enrolment: part in the study.
    kinds: kind of each trial.
    """

    name: str
    number: int
    condition: str
    severity: float
    frail: float
    side: str
    device: str
    age: float
    sex: str
    site: str
    fell: bool
    unsteady: float
    enrolment: Enrolment
    kinds: tuple[str, ...]

    @property
    def split(self) -> str:
        """The split that the protocol assigns: train or test."""
        return self.enrolment.split

    def traits(self) -> dict[str, str | float | None]:
        """The annotations that hold for all of a participant's trials."""
        enrolment = self.enrolment
        return {
            "impaired": None if enrolment.impaired == "unknown" else enrolment.impaired,
            "diagnosis": self.condition.split()[0] if enrolment.impaired == "yes" else None,
            "assistive_device": self.device if enrolment.device else None,
            "falls_history": ("yes" if self.fell else "no") if enrolment.falls else None,
            "site": self.site,
            "age": self.age,
            "sex": self.sex,
        }

    def labels(self) -> frozenset[str]:
        """Labels that should occur in every split."""
        traits = {f"{k}={v}" for k, v in self.traits().items() if isinstance(v, str)}
        return frozenset(traits | {f"kind={kind}" for kind in self.kinds})

    def latent(self) -> dict[str, str | float | None]:
        """The true traits, whether or not they were collected."""
        return {
            "condition": self.condition,
            "severity": self.severity,
            "frail": self.frail,
            "affected_side": self.side,
            "device": self.device,
            "unsteady": self.unsteady,
            "fell": "yes" if self.fell else "no",
        }


def participants(settings: SimulatorSettings) -> list[Participant]:
    """All participants of the study, train and test, in random order."""
    rng = np.random.default_rng(settings.seed)
    enrolled = enrol(settings.protocol.scaled(settings.scale), rng)
    conditions = _shares(rng, _CONDITIONS, sum(e.impaired == "yes" for e in enrolled))
    # Falls are asked from prosthesis users, as far as there are enough of them.
    conditions.sort(key=lambda condition: condition.startswith("LLPU"))
    prosthesis = conditions[len(conditions) - sum(e.falls for e in enrolled) :]
    rest = iter(rng.permutation(conditions[: len(conditions) - len(prosthesis)]).tolist())
    names = [f"S{code:06x}" for code in rng.choice(2**24, len(enrolled), replace=False)]
    people = []
    for number, enrolment in enumerate(enrolled):
        condition = "none"
        if enrolment.falls:
            condition = prosthesis.pop()
        elif enrolment.impaired == "yes":
            condition = next(rest)
        elif enrolment.impaired == "unknown" and rng.random() < 0.5:
            condition = str(rng.choice(list(_CONDITIONS), p=list(_CONDITIONS.values())))
        people.append(_draw(rng, settings, names[number], number, condition, enrolment))
    _stratify(people)
    return [people[k] for k in rng.permutation(len(people))]


def _stratify(people: list[Participant]) -> None:
    """Exchange participants so that the test split has falls and no falls, all severities and all devices."""
    # Participants who are asked about falls: test evenly spaced ones, ordered by falls and severity.
    with_falls = [k for k, p in enumerate(people) if p.enrolment.falls]
    tested = [k for k in with_falls if people[k].split == "test"]
    order = sorted(with_falls, key=lambda k: (people[k].fell, people[k].severity))
    wanted = {order[int((i + 0.5) / len(tested) * len(order))] for i in range(len(tested))}
    for k, other in zip(sorted(wanted - set(tested)), sorted(set(tested) - wanted), strict=True):
        _exchange(people, k, other)
    # A device that only train has: exchange one of its users with a tester of the most common device.
    for device in DEVICES:
        users = [k for k, p in enumerate(people) if p.enrolment.device and p.device == device]
        if len(users) < 3 or any(people[k].split == "test" for k in users):
            continue
        tested = [k for k, p in enumerate(people) if p.enrolment.device and p.split == "test"]
        common = Counter(people[k].device for k in tested)
        swaps = [
            (common[people[other].device], -k, k, other)
            for k in users
            for other in tested
            if people[k].enrolment.alike(people[other].enrolment) and not people[k].enrolment.falls
        ]
        if swaps:
            *_, k, other = max(swaps)
            _exchange(people, k, other)


def _exchange(people: list[Participant], k: int, other: int) -> None:
    """Two participants exchange their places in the study."""
    first, second = people[k], people[other]
    people[k] = replace(first, enrolment=second.enrolment, kinds=second.kinds)
    people[other] = replace(second, enrolment=first.enrolment, kinds=first.kinds)


def _draw(
    rng: np.random.Generator,
    settings: SimulatorSettings,
    name: str,
    number: int,
    condition: str,
    enrolment: Enrolment,
) -> Participant:
    group = condition.split()[0]
    mean, sd = _AGES[group]
    old = group == "none" and rng.random() < 0.5
    age = rng.uniform(65, 90) if old else np.clip(rng.normal(mean, sd), 18, 90)
    frail = float(rng.beta(2, 2)) if old and rng.random() < 0.45 else 0.0
    severity = float(0.25 + 0.75 * rng.beta(2.0, 2.0)) if condition != "none" else 0.0
    if enrolment.trials["FSST"]:
        severity *= 0.8  # severe impairments cannot perform the test
    mild, severe = (np.array(p) for p in _DEVICES[group])
    needs = max(severity, frail)
    device = str(rng.choice(list(DEVICES), p=(1 - needs) * mild + needs * severe))
    unsteady = 0.12 + (0.85 if condition == "TBI" else 0.3) * severity + 0.2 * frail
    unsteady += 0.25 * rng.beta(1.5, 4)
    fell = rng.random() < 1 / (1 + np.exp(-10 * (severity + 0.5 * unsteady - 0.88)))
    return Participant(
        name=name,
        number=number,
        condition=condition,
        severity=severity,
        frail=frail,
        side="r" if rng.random() < 0.5 else "l",
        device=device,
        age=float(round(age)),
        sex="female" if rng.random() < 0.5 else "male",
        site=str(rng.choice(_SITES)),
        fell=bool(fell),
        unsteady=float(unsteady),
        enrolment=enrolment,
        kinds=_kinds(
            rng, enrolment, settings.exercises, strenuous=needs < 0.55 and device in ("none", "orthosis")
        ),
    )


def _kinds(
    rng: np.random.Generator, enrolment: Enrolment, exercises: float, strenuous: bool
) -> tuple[str, ...]:
    """Kind of each trial, in random order. The shares of the other activities vary between participants.

    exercises: share of exercises among them.
    strenuous: whether the participant is asked to do strenuous ones.
    """
    shares = {kind: (1 - exercises) * share for kind, share in OTHERS.items()}
    allowed = {k: share for k, (_, share) in EXERCISES.items() if strenuous or k not in STRENUOUS}
    allowed["treadmill"] = 0.06
    shares |= {kind: exercises * share / sum(allowed.values()) for kind, share in allowed.items()}
    share = np.array(list(shares.values())) * np.exp(0.6 * rng.standard_normal(len(shares)))
    others = rng.choice(list(shares), enrolment.trials["others"], p=share / share.sum())
    kinds = [kind for kind, n in enrolment.trials.items() if kind != "others" for _ in range(n)]
    return tuple(str(kind) for kind in rng.permutation([*kinds, *others]))


def _shares(rng: np.random.Generator, shares: dict[str, float], count: int) -> list[str]:
    """`count` names in these shares, shuffled; shares are exact up to rounding."""
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    at = (np.arange(count) + 0.5) / count
    return [list(shares)[k] for k in rng.permutation(np.searchsorted(ends, at))]


def body_of(person: Participant, rng: np.random.Generator) -> Body:
    """A person's gait and postures: the textbook's, changed by personal style, age, impairment and device."""
    tall = rng.normal(1.63 if person.sex == "female" else 1.76, 0.06)
    old = max(person.age - 55, 0) / 25 + 0.6 * person.frail
    body = personal(typical(HIP_HEIGHT * float(tall)), rng)
    stand, sit, cycle = body.stand, body.sit, body.cycle
    for side in "rl":
        i = joint("arm_flex", side)
        cycle[:, i] = stand[i] + (1 - 0.2 * old) * (cycle[:, i] - stand[i])
    bent = -3 * max(person.age - 55, 0) / 25 - 5 * person.frail
    for posture in (stand, sit, cycle):
        posture[..., joint("lumbar_extension")] += bent
        posture[..., joint("neck_extension")] -= bent / 2
        for side in "rl":
            posture[..., joint("knee_angle", side)] -= 3 * person.frail
    if person.side == "l":
        body = body.mirrored()
    if person.condition != "none":
        effects = Effects(person.severity / _TYPICAL, rng)
        body = cautious(IMPAIRMENTS[person.condition](body, effects), effects)
    body = DEVICES[person.device].change(body, Effects(1.0, rng))
    if person.side == "l":
        body = body.mirrored()
    # Knees and elbows cannot bend backward.
    for table in (body.cycle, body.stand, body.sit):
        for side in "rl":
            k, e = joint("knee_angle", side), joint("elbow_flex", side)
            table[..., k] = np.minimum(table[..., k], 3.0)
            table[..., e] = np.maximum(table[..., e], 0.0)
    return on_the_ground(body, hikes=person.condition not in ("none", "TBI"))


def _pace(person: Participant) -> float:
    """Walking speed as a fraction of the norm: at typical severity, the condition's published mean."""
    lost = 0.3 * person.frail
    if person.condition != "none":
        published = norms.GROUPS[person.condition]["walking_speed"].mean
        lost += (1 - published / norms.walking_speed_m_s(50, person.sex).mean) * person.severity / _TYPICAL
    # The published mean is of people with and without devices.
    mild, severe = (np.array(p) for p in _DEVICES[person.condition.split()[0]])
    shares = (mild + severe) / 2 if person.condition != "none" else np.eye(len(mild))[0]
    usual = float(shares @ [device.speed for device in DEVICES.values()])
    return max((1 - lost) * DEVICES[person.device].speed / usual, 0.15)


def trials(settings: SimulatorSettings, person: Participant, rate_hz: float) -> Iterator[Trial]:
    """A person's trials. They do not depend on the other participants or on the process that simulates them."""
    rng = np.random.default_rng([settings.seed, 1, person.number])
    body = body_of(person, rng)
    speed, cadence = (
        norm(person.age, person.sex) for norm in (norms.walking_speed_m_s, norms.cadence_steps_min)
    )
    pace = _pace(person)
    usual_m_s = max(speed.mean + speed.sd * float(rng.normal()), 0.5 * speed.mean) * pace
    usual_hz = cadence.mean / 120 * (usual_m_s / speed.mean) ** _RATE_SHARE * float(rng.normal(*_STEP_RATE))
    device = DEVICES[person.device]
    usual_hz *= device.cadence / device.speed**_RATE_SHARE
    sizes = np.array([0.1, 0.4, 0.7, 1.0, 1.4])
    lengths = np.maximum.accumulate(stride_m(body, sizes))
    slow = (1 + 0.2 * max(person.age - 55, 0) / 25) / pace**0.7
    slow *= 1 + _SLOWER.get(person.condition, 0) * person.severity / _TYPICAL
    for number, kind in enumerate(person.kinds):
        range_s = settings.test_range_s if kind in _TIMED else settings.duration_range_s
        recording_s = float(rng.uniform(*range_s))
        stride_hz = usual_hz * float(rng.normal(1, 0.03))
        size = float(np.interp(usual_m_s / usual_hz * rng.normal(1, 0.03), lengths, sizes))
        style = GaitStyle(
            stride_hz=stride_hz,
            size=size,
            speed_m_s=stride_hz * float(np.interp(size, sizes, lengths)),
            unsteady=person.unsteady,
            slow=float(rng.normal(1, 0.06)) * slow,
            duration_s=recording_s * float(rng.uniform(0.55, 1.0)),
        )
        yield _trial(rng, settings, person, number, body, style, kind, recording_s, rate_hz)


def _trial(
    rng: np.random.Generator,
    settings: SimulatorSettings,
    person: Participant,
    number: int,
    body: Body,
    style: GaitStyle,
    kind: str,
    recording_s: float,
    rate_hz: float,
) -> Trial:
    activity, annotated = ACTIVITIES[kind] if kind in ACTIVITIES else (EXERCISES[kind][0], kind)
    trace = activity(rng, style, rate_hz)
    if trace.test_s is None and rng.random() < settings.short:
        trace = _short(trace, rng, rate_hz)
    else:
        trace = _in_a_recording(trace, recording_s, rng, rate_hz)
    timeline, frames = trace.timeline, len(trace.turning)
    # Unsteadiness: stride size varies, and trunk and arms sway.
    timeline.size[:] *= 1 + 0.25 * style.unsteady * smooth_noise(rng, frames, 1, 0.5, rate_hz)[:, 0]
    angles = animate(body, timeline, rate_hz)
    sway = smooth_noise(rng, frames, 7, 0.35, rate_hz) * style.unsteady
    for k, name in enumerate(("lumbar_extension", "lumbar_bending", "lumbar_rotation", "neck_bending",
                              "neck_rotation", "arm_add_r", "arm_add_l")):  # fmt: skip
        angles[:, joint(name)] += 4.0 * sway[:, k]
    moving = np.clip(timeline.size, 0, 1)[:, None] * (1 + 1.5 * style.unsteady)
    angles += moving * between_strides(rng, frames, style.stride_hz, rate_hz)
    where, added = recorded_in(settings.laboratories, settings.seed, person.number, number)
    angles = record(where, added, body.stand, angles, rate_hz, rng)
    radians = np.clip(np.radians(angles[:, :N_JOINTS]), LOW_RAD, HIGH_RAD)
    radians[:, ~where.recorded] = 0
    # The pelvis is placed after noise and limits, so that the recorded feet stand still.
    place = pelvis_of(body, radians, angles[:, N_JOINTS:], timeline, trace.turning, rate_hz)
    if trace.treadmill:
        place[:, [0, 2]] -= gaussian_filter1d(place[:, [0, 2]], rate_hz, axis=0, mode="nearest")  # the belt
    kept = slice(round(settings.longest_s * rate_hz))
    notes: dict[str, str | float | None] = {name: None for name in COLUMNS}
    notes |= person.traits() | {"activity": annotated if person.enrolment.activity else None}
    begin, end = (trace.frames.start, trace.frames.stop) if trace.frames else (0, frames)
    measures = {"stride_hz": style.stride_hz, "size": style.size, "speed_m_s": style.speed_m_s, "slow": style.slow,
                "test_s": trace.test_s, "begin_s": begin / rate_hz, "end_s": end / rate_hz,
                "height_m": body.leg_m / HIP_HEIGHT}  # fmt: skip
    radians, place = radians[kept], place[kept]
    if kind == "walkway":
        notes |= measure_walk(timeline.strides[kept][begin:end], place[begin:end], rate_hz, rng)
    elif kind in _TIMED and trace.test_s is not None and end <= len(radians):
        # A test that the recording cuts off has no time: the motion could not tell it.
        notes[f"{kind.lower()}_time"] = round(trace.test_s, 2)
    return Trial(
        trial=f"{rng.integers(2**48):012x}",
        participant=person.name,
        angles_rad=radians.astype(np.float32),
        pelvis=place,
        joint_mask=where.recorded,
        frame_rate_hz=rate_hz,
        provenance="synthetic",
        annotations=notes,
        latent=person.latent() | measures | {"kind": kind, "item": trace.item},
    )


def _short(trace: ActivityTrace, rng: np.random.Generator, rate_hz: float) -> ActivityTrace:
    """One to four seconds of the activity: on a walkway, one to a few steps."""
    frames = min(round(rng.uniform(1.0, 4.0) * rate_hz), len(trace.turning))
    first = int(rng.integers(len(trace.turning) - frames + 1))
    return trace.cropped(first, first + frames)


def _in_a_recording(
    trace: ActivityTrace, recording_s: float, rng: np.random.Generator, rate_hz: float
) -> ActivityTrace:
    """The activity somewhere within a recording of this length, or of a longer one if it takes longer.

    So the length of a recording tells little of the activity or of the time that it took.
    """
    lead_s = rng.exponential(0.7, 2)
    spare_s = max(recording_s - len(trace.turning) / rate_hz - lead_s.sum(), 0.0)
    before_s = lead_s[0] + spare_s * rng.random()
    after_s = lead_s.sum() + spare_s - before_s
    return trace.within(round(before_s * rate_hz), round(after_s * rate_hz), round(0.6 * rate_hz))


def measure_walk(
    strides: np.ndarray, place: np.ndarray, rate_hz: float, rng: np.random.Generator
) -> dict[str, str | float | None]:
    """Cadence and walking speed as an instrumented walkway measures them: the true values with 1 % of error.

    A walkway measures from one footfall to another, so speed is a mean over whole strides, or over one step where
    there is no whole stride. Over a part of a stride it would depend on which part that is. Of less than a step it
    is that of the whole recording.
    strides: (T,), completed by each frame; place: (T, 7), the pelvis.
    A value outside the plausible range is None: in one second of a very slow walk a person may stand.
    """
    seconds = (len(strides) - 1) / rate_hz
    walked = float(strides[-1] - strides[0])
    cadence = 120 * walked / seconds
    frame_s = np.arange(len(strides)) / rate_hz
    from_s, to_s = np.zeros(1), np.full(1, seconds)
    if walked >= 0.5:
        whole = max(np.floor(walked), 0.5)
        # From a few points of the first stride on: nobody knows where in a stride the recording began.
        begins = np.linspace(strides[0], strides[-1] - whole, 5)
        from_s, to_s = (np.interp(at, strides, frame_s) for at in (begins, begins + whole))
    ways = [np.interp(to_s, frame_s, x) - np.interp(from_s, frame_s, x) for x in (place[:, 0], place[:, 2])]
    speed = float(np.mean(np.hypot(*ways) / (to_s - from_s)))
    error = 1 + 0.01 * rng.standard_normal(2)
    values = {"cadence": round(cadence * error[0], 1), "walking_speed": round(speed * error[1], 3)}
    limits = {name: OUTCOME_MEASURES[name] for name in values}
    return {name: v if limits[name].low <= v <= limits[name].high else None for name, v in values.items()}
