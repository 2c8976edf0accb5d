"""Quantities that are measured from joint angles and the pelvis, each with what it rests on and its norm.

`QUANTITIES` is the registry. Each entry measures one or several values of a movement: one for each side, or one
for each phase of a test. A quantity that the recording does not contain has no value and a plain reason. The
shorter list `parameters.PARAMETERS` is what descriptions are made of. Knows nothing about questions or models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from biomechgpt.motion import norms, phases
from biomechgpt.motion.gait import SIDES, Side
from biomechgpt.motion.kinematics import HEIGHT_M, LANDMARKS, points_m
from biomechgpt.motion.norms import Norm
from biomechgpt.motion.parameters import ranges_deg
from biomechgpt.motion.phases import Phase, Posture
from biomechgpt.motion.skeleton import INDEX, N_JOINTS
from biomechgpt.motion.walking import Walk, find_walk, heading

SIDE_NAMES: dict[Side, str] = {"r": "right", "l": "left"}
USUAL_AGE = 50.0
"""Age whose norms are shown if the person's age is not known."""
NO_WALK = "the recording shows no steady walk"
_TILT_RAD = 1e-3
"""A pelvis that tilts less than this was recorded upright: its tilt is not known."""


@dataclass(frozen=True)
class Person:
    """What is known about the person, for norms. None: not known.

    sex: "male" or "female".
    """

    age: float | None = None
    sex: str | None = None

    @property
    def words(self) -> str:
        """The group whose norm is shown: `women of 62 years`."""
        who = {"male": "men", "female": "women"}.get(self.sex or "", "adults")
        age = USUAL_AGE if self.age is None else self.age
        return f"healthy {who} of {age:.0f} years" + ("" if self.age is not None else " (age not known)")


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    value: None if the recording does not contain the quantity; `reason` then says why.
    unit: of value and norm; empty for a ratio.
    n: number of events it rests on; None if it rests on the whole recording.
    events: what these are: steps, strides, rises ...
    begin_s, end_s: place in the recording.
    part: side ("right") or phase ("turn"); empty for a single value.
    norm: mean and SD of the group `norm_of`; None where motion.norms has none.
    note: a limit of the value, in plain words.
    """

    value: float | None
    unit: str
    n: int | None = None
    events: str = ""
    begin_s: float | None = None
    end_s: float | None = None
    part: str = ""
    norm: Norm | None = None
    norm_of: str = ""
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Movement:
    """A movement to measure.

    angles_rad: (T, 34) radians.
    pelvis: (T, 7) as in `Trial`.
    rate_hz: frames per second.
    joint_mask: (34,) True where a joint was recorded.
    person: for norms.
    """

    angles_rad: np.ndarray
    pelvis: np.ndarray
    rate_hz: float
    joint_mask: np.ndarray
    person: Person = Person()

    @property
    def duration_s(self) -> float:
        return len(self.angles_rad) / self.rate_hz

    @cached_property
    def walk(self) -> Walk | None:
        """Its steady walk; a four square step test has none, though people step in it."""
        walk = find_walk(self.angles_rad, self.pelvis, self.rate_hz)
        return walk if walk is None or isinstance(self.fsst, str) else None

    @cached_property
    def posture(self) -> Posture:
        return phases.posture(self.angles_rad, self.pelvis, self.rate_hz)

    @cached_property
    def sits(self) -> bool:
        """Whether somebody stands up from a chair, or sits down on one."""
        return bool(phases.transitions(self.posture))

    @cached_property
    def tug(self) -> list[Phase] | str:
        return phases.tug(self.posture, self.pelvis)

    @cached_property
    def fsst(self) -> list[Phase] | str:
        return phases.fsst(self.pelvis, self.rate_hz)

    @cached_property
    def points(self) -> np.ndarray:
        """(T, P, 3) positions of LANDMARKS."""
        return points_m(self.angles_rad, self.pelvis, ground="none").astype(float)

    def recorded(self, *joints: str) -> bool:
        return bool(self.joint_mask[[INDEX[joint] for joint in joints]].all())

    @property
    def age(self) -> float:
        return USUAL_AGE if self.person.age is None else self.person.age

    @property
    def sex(self) -> str:
        return self.person.sex or ""


@dataclass(frozen=True)
class Quantity:
    """A quantity that can be measured.

    label: its name in words.
    unit: unit of its values; empty for a ratio.
    decimals: decimals shown.
    tolerance: largest difference between two good measurements, in `unit`.
    measure: its values for a movement, at least one.
    """

    label: str
    unit: str
    decimals: int
    tolerance: float
    measure: Callable[[Movement], list[Measurement]]


def measure(name: str, movement: Movement) -> list[Measurement]:
    """The values of one quantity of `QUANTITIES`. Raises KeyError for another name."""
    if len(movement.angles_rad) < 2:
        return [Measurement(None, QUANTITIES[name].unit, reason="the recording has fewer than two frames")]
    return QUANTITIES[name].measure(movement)


def measure_all(movement: Movement) -> dict[str, list[Measurement]]:
    """Every quantity of `QUANTITIES` of a movement."""
    return {name: measure(name, movement) for name in QUANTITIES}


def movement(
    angles_rad: np.ndarray,
    pelvis: np.ndarray,
    rate_hz: float,
    joint_mask: np.ndarray | None = None,
    person: Person | None = None,
) -> Movement:
    """The movement of these arrays; every joint counts as recorded unless a mask (34,) says otherwise."""
    mask = np.ones(N_JOINTS, dtype=bool) if joint_mask is None else np.asarray(joint_mask, dtype=bool)
    return Movement(angles_rad, pelvis, rate_hz, mask, person or Person())


def _of_walk(
    m: Movement, unit: str, value: Callable[[Walk], float], norm: Norm | None = None, note: str = ""
) -> list[Measurement]:
    """A value of the whole walk."""
    walk = m.walk
    if walk is None:
        return [Measurement(None, unit, reason=NO_WALK)]
    return [
        Measurement(
            value(walk),
            unit,
            walk.n_steps,
            "steps",
            walk.begin_s,
            walk.end_s,
            norm=norm,
            norm_of=m.person.words if norm else "",
            note=note,
        )
    ]


def _scale_note(m: Movement) -> str:
    """The limit of lengths that come from the legs."""
    if m.walk is None or m.walk.overground:
        return ""
    return f"from the legs, for a body height of {HEIGHT_M:.2f} m: the recorded pelvis does not move"


def _mean(
    values: Sequence[tuple[float, float]], unit: str, events: str, m: Movement, part: str, reason: str,
    norm: Norm | None = None, norm_of: str = "", note: str = "",
) -> Measurement:  # fmt: skip
    """The mean of (frame, value) pairs; `reason` if there are none."""
    if not values:
        return Measurement(None, unit, part=part, reason=reason)
    frames = [frame for frame, _ in values]
    return Measurement(
        float(np.mean([value for _, value in values])),
        unit,
        len(values),
        events,
        min(frames) / m.rate_hz,
        max(frames) / m.rate_hz,
        part,
        norm,
        norm_of if norm else "",
        note,
    )


def _duration(m: Movement) -> list[Measurement]:
    return [Measurement(m.duration_s, "s", begin_s=0.0, end_s=m.duration_s)]


def _speed(m: Movement) -> list[Measurement]:
    norm = norms.walking_speed_m_s(m.age, m.sex)
    return _of_walk(m, "m/s", lambda walk: walk.speed_m_s, norm, _scale_note(m))


def _cadence(m: Movement) -> list[Measurement]:
    norm = norms.cadence_steps_min(m.age, m.sex)
    return _of_walk(m, "steps/min", lambda walk: 60 / walk.step_s, norm)


def _stride_length(m: Movement) -> list[Measurement]:
    return _of_walk(m, "m", lambda walk: 2 * walk.speed_m_s * walk.step_s, None, _scale_note(m))


def _step_length(m: Movement) -> list[Measurement]:
    walk = m.walk
    if walk is None:
        return [Measurement(None, "m", reason=NO_WALK)]
    lengths, norm = walk.step_lengths_m(), norms.step_length_m(m.age, m.sex)
    note = _scale_note(m)
    if not note and not (lengths["r"] and lengths["l"]):
        note = f"by the proportions of a body height of {HEIGHT_M:.2f} m: only one foot lands"
    return [
        _mean(
            list(zip(walk.strikes[side], lengths[side], strict=True)),
            "m",
            "steps",
            m,
            SIDE_NAMES[side],
            f"the {SIDE_NAMES[side]} foot does not land within the recording",
            norm,
            m.person.words,
            note,
        )
        for side in SIDES
    ]


def _stance_share(m: Movement) -> list[Measurement]:
    walk = m.walk
    if walk is None:
        return [Measurement(None, "%", reason=NO_WALK)]
    found = []
    for side in SIDES:
        found.append(
            _mean(
                [(strike, 100 * share) for strike, share in walk.stance_shares(side)],
                "%",
                "stance phases",
                m,
                SIDE_NAMES[side],
                f"no {SIDE_NAMES[side]} stance was recorded from heel strike to toe-off",
            )
        )
    return found


def _step_time_symmetry(m: Movement) -> list[Measurement]:
    walk = m.walk
    if walk is None:
        return [Measurement(None, "", reason=NO_WALK)]
    times = [walk.step_times_s(side) for side in SIDES]
    if not all(times):
        reason = "a right and a left step are needed, from heel strike to heel strike"
        return [Measurement(None, "", reason=reason)]
    right, left = (float(np.mean(of_side)) for of_side in times)
    n = sum(map(len, times))
    value = min(right, left) / max(right, left)
    return [Measurement(value, "", n, "steps", walk.begin_s, walk.end_s)]


def _curve_norm(joint: str, percent: float | None) -> Norm | None:
    """The norm of knee flexion at a percentage of the gait cycle; None: at its peak in swing."""
    band = norms.gait_band(joint)
    if band is None:
        return None
    mean, sd = band
    at = int(np.argmin(mean)) if percent is None else round(percent)
    return Norm(float(-mean[at]), float(sd[at]), norms.CURVES)


_CURVE_GROUP = "healthy walkers of 4 to 17 years"


def _of_knees(
    m: Movement, measure_side: Callable[[Walk, Side, str, np.ndarray], Measurement]
) -> list[Measurement]:
    """A value of a walk for each recorded knee.

    measure_side: the value of a walk, a side, its name and the flexion of its knee (T,) in degrees.
    """
    if m.walk is None:
        return [Measurement(None, "deg", reason=NO_WALK)]
    values = []
    for side in SIDES:
        name, joint = SIDE_NAMES[side], f"knee_angle_{side}"
        if m.recorded(joint):
            flexion = -np.degrees(m.angles_rad[:, INDEX[joint]].astype(float))
            values.append(measure_side(m.walk, side, name, flexion))
        else:
            values.append(Measurement(None, "deg", part=name, reason=f"the {name} knee was not recorded"))
    return values


def _knee_swing(m: Movement) -> list[Measurement]:
    def peak(walk: Walk, side: Side, name: str, flexion: np.ndarray) -> Measurement:
        return _mean(
            walk.swing_peaks(flexion, side),
            "deg",
            "swings",
            m,
            name,
            f"no {name} swing shows a peak of knee flexion within the recording",
            _curve_norm(f"knee_angle_{side}", None),
            _CURVE_GROUP,
        )

    return _of_knees(m, peak)


def _knee_contact(m: Movement) -> list[Measurement]:
    def at_strikes(walk: Walk, side: Side, name: str, flexion: np.ndarray) -> Measurement:
        strikes = walk.strikes[side]
        return _mean(
            list(zip(strikes, np.interp(strikes, np.arange(len(flexion)), flexion), strict=True)),
            "deg",
            "heel strikes",
            m,
            name,
            f"the {name} foot does not land within the recording",
            _curve_norm(f"knee_angle_{side}", 0),
            _CURVE_GROUP,
            "flexion; 0 is straight, a negative value is hyperextension",
        )

    return _of_knees(m, at_strikes)


def _window(m: Movement) -> tuple[slice, float, float, int | None, str]:
    """Frames of the walk, or of the whole recording: (frames, begin_s, end_s, n, events)."""
    if m.walk is None:
        return slice(None), 0.0, m.duration_s, None, ""
    first, last = (int(at * m.rate_hz) for at in (m.walk.begin_s, m.walk.end_s))
    return slice(first, last + 1), m.walk.begin_s, m.walk.end_s, m.walk.n_steps, "steps"


def _tilts(m: Movement) -> bool:
    """Whether the recording contains the pelvis' tilt or list; many set both to 0."""
    # A pelvis that only turns on the ground has no rotation about X and Z: these parts of the quaternion are 0.
    return bool(np.abs(m.pelvis[:, [4, 6]]).max() > _TILT_RAD)


def _trunk_lean(m: Movement) -> list[Measurement]:
    if not m.recorded("lumbar_extension", "lumbar_bending"):
        return [Measurement(None, "deg", reason="the trunk was not recorded")]
    frames, begin_s, end_s, n, events = _window(m)
    lumbar, neck = LANDMARKS.index("lumbar"), LANDMARKS.index("neck")
    trunk = m.points[:, neck] - m.points[:, lumbar]
    facing = heading(m.pelvis)
    forward = (trunk[:, [0, 2]] * facing).sum(axis=1)
    # Right of where the pelvis faces: the heading (x, z) turned by 90 degrees is (-z, x).
    right = (trunk[:, [0, 2]] * np.stack([-facing[:, 1], facing[:, 0]], axis=1)).sum(axis=1)
    leans = [np.degrees(np.arctan2(way, trunk[:, 1]))[frames] for way in (forward, right)]
    note = "" if _tilts(m) else "relative to the pelvis, whose tilt was not recorded"
    low, high = np.percentile(leans[1], [2, 98])
    values = (
        ("forward, mean", float(leans[0].mean())),
        ("to the right, mean", float(leans[1].mean())),
        ("from side to side, range", float(high - low)),
    )
    return [Measurement(value, "deg", n, events, begin_s, end_s, part, note=note) for part, value in values]


def _pelvic_drop(m: Movement) -> list[Measurement]:
    walk = m.walk
    if walk is None:
        return [Measurement(None, "deg", reason=NO_WALK)]
    if not _tilts(m):
        return [Measurement(None, "deg", reason="the pelvis' tilt was not recorded")]
    hips = m.points[:, LANDMARKS.index("hip_r")] - m.points[:, LANDMARKS.index("hip_l")]
    # Positive: the right hip is higher, so the left side of the pelvis drops.
    right_up = np.degrees(np.arctan2(hips[:, 1], np.hypot(hips[:, 0], hips[:, 2])))
    found = []
    for side in SIDES:
        name, other = SIDE_NAMES[side], SIDE_NAMES["l" if side == "r" else "r"]
        drops = []
        for begin, end in _single_stances(walk, side):
            inside = (1 if side == "r" else -1) * right_up[int(np.ceil(begin)) : int(end) + 1]
            if len(inside):
                drops.append((begin, float(inside.max())))
        found.append(
            _mean(
                drops,
                "deg",
                "single stances",
                m,
                f"{name} stance",
                f"no single stance on the {name} leg within the recording",
                note=f"largest drop of the {other} side below level; negative: it stays higher",
            )
        )
    return found


def _single_stances(walk: Walk, side: Side) -> list[tuple[float, float]]:
    """(begin, end) of each time in which only this foot bears the body: the other one's swing.

    From the other foot's toe-off to its heel strike; where the toe-off was not recorded, half a step before the
    strike.
    """
    other: Side = "l" if side == "r" else "r"
    stances = []
    for strike in walk.strikes[other]:
        earlier = walk.toe_offs[other][walk.toe_offs[other] < strike]
        half = 0.5 * walk.step_s * walk.rate_hz
        begin = float(earlier[-1]) if len(earlier) and strike - earlier[-1] < 2.5 * half else strike - half
        stances.append((max(float(begin), 0.0), float(strike)))
    return stances


def _range(joint: str) -> Callable[[Movement], list[Measurement]]:
    """The range of motion of a joint, right and left."""

    def ranges(m: Movement) -> list[Measurement]:
        # The norm is of walking alone: standing up from a chair bends joints further.
        is_walk = m.walk is not None and not m.sits
        found = []
        for side in SIDES:
            name, part = f"{joint}_{side}", SIDE_NAMES[side]
            if not m.recorded(name):
                found.append(Measurement(None, "deg", part=part, reason="this joint was not recorded"))
                continue
            value = float(ranges_deg(m.angles_rad)[INDEX[name]])
            band = norms.gait_band(name) if is_walk else None
            norm = Norm(float(np.ptp(band[0])), float(band[1].mean()), norms.CURVES) if band else None
            group = _CURVE_GROUP if norm else ""
            found.append(
                Measurement(value, "deg", None, "", 0.0, m.duration_s, part, norm=norm, norm_of=group)
            )
        return found

    return ranges


def _test_time(found: list[Phase] | str, norm: Norm, m: Movement) -> list[Measurement]:
    if isinstance(found, str):
        return [Measurement(None, "s", reason=found)]
    begin_s, end_s = found[0].begin_s, found[-1].end_s
    return [
        Measurement(
            end_s - begin_s,
            "s",
            len(found),
            "phases",
            begin_s,
            end_s,
            norm=norm,
            norm_of=f"healthy adults of {m.age:.0f} years"
            + ("" if m.person.age is not None else " (age not known)"),
        )
    ]


def _phases(found: list[Phase] | str) -> list[Measurement]:
    if isinstance(found, str):
        return [Measurement(None, "s", reason=found)]
    return [
        Measurement(phase.duration_s, "s", None, "", phase.begin_s, phase.end_s, phase.name)
        for phase in found
    ]


def _sit_to_stand(m: Movement) -> list[Measurement]:
    found = phases.sit_to_stand(m.posture)
    if isinstance(found, str):
        return [Measurement(None, "s", reason=found)]
    measured = []
    for name, events in (("standing up", "rises"), ("sitting down", "descents")):
        of_kind = [phase for phase in found if phase.name == name]
        if of_kind:
            mean_s = float(np.mean([phase.duration_s for phase in of_kind]))
            measured.append(
                Measurement(mean_s, "s", len(of_kind), events, of_kind[0].begin_s, of_kind[-1].end_s, name)
            )
    rises = [phase for phase in found if phase.name == "standing up"]
    if len(rises) >= 5:
        five = Measurement(
            rises[4].end_s - rises[0].begin_s, "s", 5, "rises", rises[0].begin_s, rises[4].end_s, "five rises"
        )
        measured.append(five)
    return measured


QUANTITIES: dict[str, Quantity] = {
    "duration": Quantity("duration of the recording", "s", 1, 0.1, _duration),
    "speed": Quantity("walking speed", "m/s", 2, 0.15, _speed),
    "cadence": Quantity("cadence", "steps/min", 0, 6, _cadence),
    "step_length": Quantity("step length", "m", 2, 0.08, _step_length),
    "stride_length": Quantity("stride length", "m", 2, 0.15, _stride_length),
    "stance_share": Quantity("share of the stride in stance", "%", 0, 5, _stance_share),
    "step_time_symmetry": Quantity(
        "step time symmetry (shorter over longer)", "", 2, 0.07, _step_time_symmetry
    ),
    "peak_knee_flexion_swing": Quantity("peak knee flexion in swing", "deg", 0, 6, _knee_swing),
    "knee_extension_contact": Quantity("knee flexion at initial contact", "deg", 0, 6, _knee_contact),
    "trunk_lean": Quantity("trunk lean", "deg", 0, 6, _trunk_lean),
    "pelvic_drop": Quantity("pelvic drop in single stance", "deg", 0, 4, _pelvic_drop),
    "hip_range": Quantity("range of hip flexion", "deg", 0, 6, _range("hip_flexion")),
    "knee_range": Quantity("range of knee flexion", "deg", 0, 6, _range("knee_angle")),
    "ankle_range": Quantity("range of ankle dorsiflexion", "deg", 0, 6, _range("ankle_angle")),
    "shoulder_range": Quantity("range of shoulder flexion (arm swing)", "deg", 0, 6, _range("arm_flex")),
    "tug_time": Quantity(
        "time of the timed up and go", "s", 1, 1.5, lambda m: _test_time(m.tug, norms.tug_s(m.age), m)
    ),
    "tug_phases": Quantity("phases of the timed up and go", "s", 1, 1.0, lambda m: _phases(m.tug)),
    "fsst_time": Quantity(
        "time of the four square step test", "s", 1, 1.5, lambda m: _test_time(m.fsst, norms.fsst_s(m.age), m)
    ),
    "fsst_phases": Quantity("phases of the four square step test", "s", 1, 1.0, lambda m: _phases(m.fsst)),
    "sit_to_stand_time": Quantity("time of sit to stand", "s", 1, 0.5, _sit_to_stand),
}
"""Quantities by name. Lengths and speeds come from the recorded pelvis where it moves over the ground, else from
the legs. Clinical times run from the first movement on the chair (or of the pelvis) to the last one."""


def format_value(name: str, measured: Measurement) -> str:
    """A value with its unit: `0.98 m/s`; `-` without one."""
    if measured.value is None:
        return "-"
    quantity = QUANTITIES[name]
    number = round(measured.value, quantity.decimals) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return f"{number:.{quantity.decimals}f} {quantity.unit}".rstrip()
