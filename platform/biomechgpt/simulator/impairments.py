"""Effects of impairments and assistive devices on a simulated body.

Each function takes a `Body` and returns one with the right side affected; the left side is its mirror image. An
effect has a mean at typical severity and differs between people, as in the publications named beside it. Sizes
marked * are quoted from memory and unverified. Nothing is tuned to the score of a classifier. Knows nothing about
questions or predictions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from biomechgpt.simulator.movement import CYCLE, Body, bump, joint

_PHASE = 2 * np.pi * np.arange(CYCLE) / CYCLE


@dataclass(frozen=True)
class Effects:
    """Draws the sizes of a person's effects.

    severity: 1 is typical; means grow in proportion to it.
    """

    severity: float
    rng: np.random.Generator

    def size(self, mean: float, sd: float) -> float:
        """An effect with this mean and SD at typical severity; one with a mean above 0 is never below 0."""
        drawn = self.severity * self.rng.normal(mean, sd)
        return float(max(drawn, 0.0)) if mean > 0 else float(drawn)


Change = Callable[[Body, Effects], Body]


def _copy(body: Body, rhythm: float = 0.0) -> Body:
    return Body(body.cycle.copy(), body.stand.copy(), body.sit.copy(), body.leg_m, body.rhythm + rhythm)


def _shift(body: Body, i: int, degrees: float, *, sitting: float = 0.0) -> None:
    body.cycle[:, i] += degrees
    body.stand[i] += degrees
    body.sit[i] += degrees * sitting


def _scale(body: Body, i: int, factor: float) -> None:
    """Scale a joint's excursion about its standing angle."""
    body.cycle[:, i] = body.stand[i] + max(factor, 0.05) * (body.cycle[:, i] - body.stand[i])


def _lean(body: Body, degrees: float, *, sitting: float = 0.0) -> None:
    """The trunk leans forward, a third of it by the pelvis."""
    _shift(body, joint("lumbar_extension"), -degrees * 2 / 3, sitting=sitting)
    _shift(body, joint("pelvis_tilt"), -degrees / 3, sitting=sitting)
    for side in "rl":
        _shift(body, joint("hip_flexion", side), degrees / 3, sitting=sitting)


def _hike(body: Body, degrees: float) -> None:
    """The pelvis rises on the right in right swing; the trunk bends against it."""
    body.cycle[:, joint("pelvis_list")] -= degrees * bump(75, 11)
    body.cycle[:, joint("lumbar_bending")] += 0.6 * degrees * bump(75, 11)


def cautious(body: Body, effects: Effects) -> Body:
    """Cautious gait: less motion of arms and trunk, a wider base, slightly bent knees and trunk*."""
    body, size = _copy(body), effects.size
    arms, width, knees = size(0.15, 0.1), size(1.0, 0.8), size(1.5, 1.5)
    for side in "rl":
        _scale(body, joint("arm_flex", side), 1 - arms)
        _shift(body, joint("hip_adduction", side), -width)
        _shift(body, joint("knee_angle", side), -knees)
    _scale(body, joint("lumbar_rotation"), 1 - size(0.2, 0.12))
    _lean(body, size(2.0, 2.0))
    return body


def stroke(body: Body, effects: Effects) -> Body:
    """Stiff knee, circumduction, equinus, pelvic hike; a flexed, still arm; a shorter stance on the affected side.

    Largest knee flexion in swing 40 (SD 12)* instead of 62, where 40 to 50 define a stiff knee (J Clin Med 2022;
    11: 6270); pelvic obliquity in swing 8.2 (2.8) (Cruz and Dhaher, Gait Posture 2009; 30: 312-316); hip extension
    10 (7)* less; ankle at contact 8 (7)* and in swing 5 (7)* more plantarflexed; stance 63 and 70 % of the stride*;
    arm swing .5 (.25)*, elbow 20 (15)* more flexed (* Kim and Eng 2004, Chen 2005, Olney and Richards 1996, Ford
    2007).
    """
    size = effects.size
    body = _copy(body, size(0.26, 0.12))
    knee, hip, ankle = (joint(name, "r") for name in ("knee_angle", "hip_flexion", "ankle_angle"))
    body.cycle[:, knee] += size(22, 11) * bump(72, 9) + size(0, 6) * bump(36, 12)
    body.cycle[:, hip] += size(9, 6) * bump(50, 11) - size(4, 4) * bump(86, 9)
    body.cycle[:, ankle] -= size(6, 5) * bump(82, 11) + size(6, 5) * bump(0, 7)
    body.cycle[:, ankle] += size(8, 5) * bump(63, 7)  # weak push-off
    body.cycle[:, joint("hip_adduction", "r")] -= size(4, 2.5) * bump(74, 11)
    body.cycle[:, joint("subtalar_angle", "r")] += size(5, 4) * bump(85, 14)
    _hike(body, size(4.5, 2.5))
    body.cycle[:, joint("lumbar_bending")] -= size(3, 2) * bump(74, 14)
    stiffness = size(0.5, 0.25)
    _scale(body, joint("arm_flex", "r"), 1 - stiffness)
    _scale(body, joint("elbow_flex", "r"), 1 - stiffness)
    _shift(body, joint("elbow_flex", "r"), size(20, 15), sitting=0.5)
    _shift(body, joint("arm_rot", "r"), size(8, 8), sitting=0.7)
    _shift(body, joint("pro_sup", "r"), size(8, 12), sitting=1.0)
    _shift(body, joint("wrist_flex", "r"), size(8, 10), sitting=1.0)
    return body


def _prosthetic_foot(body: Body, effects: Effects) -> None:
    """The right ankle moves 18 (SD 4)* degrees instead of 30 and hardly pushes off; foot and toes are stiff."""
    size = effects.size
    _scale(body, joint("ankle_angle", "r"), 1 - min(size(0.25, 0.1), 0.6))
    body.cycle[:, joint("ankle_angle", "r")] += size(10, 4) * bump(63, 7)
    _scale(body, joint("mtp_angle", "r"), 0.3)
    _scale(body, joint("subtalar_angle", "r"), 0.2)


def transtibial(body: Body, effects: Effects) -> Body:
    """Prosthesis below the knee: little knee flexion in loading, no push-off, early heel rise, trunk lean.

    Knee flexion in loading 11 (SD 5)* instead of 18; stance 61 and 64 %*; step width 14 instead of 10 cm* (* Powers
    1998, Sanderson and Martin 1997, Bateni and Olney 2002, Nolan 2003).
    """
    size = effects.size
    body = _copy(body, size(0.12, 0.08))
    _prosthetic_foot(body, effects)
    body.cycle[:, joint("knee_angle", "r")] += size(8.5, 4) * bump(14, 7) - size(4, 3) * bump(46, 7)
    body.cycle[:, joint("hip_flexion", "r")] += size(3, 3) * bump(70, 12)
    body.cycle[:, joint("lumbar_bending")] += size(2, 1.5) * bump(25, 13)
    width = size(1.2, 0.8)
    for side in "rl":
        _shift(body, joint("hip_adduction", side), -width)
    return body


def transfemoral(body: Body, effects: Effects) -> Body:
    """Prosthesis above the knee: a straight knee in stance, pelvic hike, trunk lean, vaulting, a wide base.

    Largest knee flexion in swing 55 to 64 (SD 6), as in people without a prosthesis (Segal et al., J Rehabil Res
    Dev 2006; 43: 857-870); in loading 2 (3)*; trunk lean over the prosthesis 5 (3)*; hike 6 (3)*; stance 58 and 66
    %*; step width 18 cm*; three in ten vault* (* Jaegers 1995, Goujon-Pillet 2008, Highsmith 2010).
    """
    size = effects.size
    body = _copy(body, size(0.3, 0.1))
    _prosthetic_foot(body, effects)
    knee = body.cycle[:, joint("knee_angle", "r")]
    knee += size(15, 3) * bump(14, 8) + size(4, 2) * bump(38, 8) + size(0, 6) * bump(72, 9)
    body.cycle[:, joint("hip_flexion", "r")] += size(5, 4) * bump(48, 12)
    _hike(body, size(4, 2.5))
    body.cycle[:, joint("lumbar_bending")] += size(5, 2.5) * bump(28, 13)
    if effects.rng.random() < 0.3:
        body.cycle[:, joint("ankle_angle", "l")] -= size(9, 3) * bump(28, 10)
    _shift(body, joint("hip_adduction", "r"), -size(3.5, 2))
    _shift(body, joint("hip_adduction", "l"), -size(1.5, 1))
    _lean(body, size(2, 2))
    return body


def spinal_cord(body: Body, effects: Effects) -> Body:
    """Stiff, flexed knees, little hip extension, adducted thighs, trunk forward; the right side a little more.

    Directions: Physical Therapy (Taiwan) 2006; 31: 206-212 (17 people). Knee at contact 14 (SD 9)* flexed, in swing
    48 (12)*; hip extension 10 (8)* less; ankle range 8 (6)* less; trunk 6 (5)* forward (* Pepin 2003, Krawetz and
    Nance 1996, Gil-Agudo 2011).
    """
    size = effects.size
    body = _copy(body, size(0.05, 0.05))
    for side, share, start in (("r", 1.15, 0), ("l", 0.85, CYCLE // 2)):

        def at(centre: float, width: float, start: int = start) -> np.ndarray:
            return np.roll(bump(centre, width), start)

        knee, hip, ankle = (joint(name, side) for name in ("knee_angle", "hip_flexion", "ankle_angle"))
        body.cycle[:, knee] += share * (
            size(12, 9) * at(72, 9) - size(9, 7) * at(0, 10) + size(0, 6) * at(38, 10)
        )
        body.cycle[:, hip] += share * size(9, 7) * at(50, 13)
        _scale(body, ankle, 1 - share * min(size(0.25, 0.15), 0.7))
        body.cycle[:, ankle] += share * size(0, 5) * at(82, 11)
        _shift(body, joint("hip_adduction", side), share * size(2, 2), sitting=0.6)
        _shift(body, joint("arm_add", side), -size(5, 4))
    _lean(body, size(6, 4), sitting=0.6)
    return body


def brain_injury(body: Body, effects: Effects) -> Body:
    """A wide base, a swaying trunk, abducted arms with less swing, bent knees. Each trial is unsteady as well.

    Step width 13 to 17 instead of 10 cm*; the trunk moves 1.3 to 1.8 times as far to the sides* (* Serrao 2012,
    Conte 2014, Williams 2009). Steps vary more (Niechwiej-Szwedo et al., Gait Posture 2007; 25: 70-77).
    """
    size = effects.size
    body = _copy(body)
    width, arms, swing, knees = size(2.2, 1.3), size(5, 4), size(0.3, 0.2), size(3, 3)
    for side in "rl":
        _shift(body, joint("hip_adduction", side), -width)
        _shift(body, joint("arm_add", side), -arms, sitting=0.3)
        _scale(body, joint("arm_flex", side), 1 - swing)
        _shift(body, joint("knee_angle", side), -knees)
        body.cycle[:, joint("ankle_angle", side)] += size(4, 3) * bump(63 if side == "r" else 13, 7)
    _scale(body, joint("lumbar_bending"), 1 + size(0.5, 0.3))
    return body


def _grip(body: Body, side: str, effects: Effects) -> None:
    """A hand that holds a handle. It differs by less than hands differ between people and laboratories."""
    size = effects.size
    _shift(body, joint("pro_sup", side), size(8, 8))
    _shift(body, joint("wrist_flex", side), -size(8, 8))
    _shift(body, joint("wrist_dev", side), size(3, 4))


def no_device(body: Body, effects: Effects) -> Body:
    """The body as it is."""
    return body


def cane(body: Body, effects: Effects) -> Body:
    """A cane in the left hand, opposite to the affected side; it moves with the right leg.

    It takes a part of the load of right stance, so the pelvis drops less. Arm swing .6, elbow 20 (6) flexed, trunk
    2 (2) forward*.
    """
    body, size = _copy(body), effects.size
    i, e = joint("arm_flex", "l"), joint("elbow_flex", "l")
    _scale(body, i, 1 - size(0.4, 0.15))
    held = size(20, 6)
    body.cycle[:, e] = held + size(4, 2) * np.cos(_PHASE)
    body.stand[e] = held
    _shift(body, joint("arm_add", "l"), -size(4, 3))
    _grip(body, "l", effects)
    drop = np.clip(1 - size(0.35, 0.2) * bump(25, 14), 0.2, 1)
    body.cycle[:, joint("pelvis_list")] *= drop
    body.cycle[:, joint("lumbar_bending")] -= size(1.5, 1) * bump(25, 14)
    _lean(body, size(2, 2))
    return body


def walker(body: Body, effects: Effects) -> Body:
    """Both hands on a walker: arms forward and still, elbows 25 (8) flexed, trunk 12 (6) forward*."""
    body, size = _copy(body), effects.size
    held, forward, still = size(25, 8), size(16, 6), size(0.1, 0.05)
    for side in "rl":
        for name, value in (("arm_flex", forward), ("elbow_flex", held)):
            i = joint(name, side)
            _scale(body, i, still)
            _shift(body, i, value - body.stand[i])
        _grip(body, side, effects)
    _scale(body, joint("lumbar_rotation"), 1 - size(0.4, 0.15))
    _lean(body, size(12, 5))
    return body


def crutches(body: Body, effects: Effects) -> Body:
    """Two crutches that swing forward with the right leg; elbows 25 (7) flexed, trunk 8 (4) forward*."""
    body, size = _copy(body), effects.size
    swing, held, out = size(9, 4), size(25, 7), size(6, 4)
    for side in "rl":
        i, e = joint("arm_flex", side), joint("elbow_flex", side)
        body.cycle[:, i] = body.stand[i] + 4 + swing * np.cos(_PHASE)
        body.stand[i] += 4
        _scale(body, e, 0.5)
        _shift(body, e, held - body.stand[e])
        _shift(body, joint("arm_add", side), -out)
        _grip(body, side, effects)
    drop = np.clip(1 - size(0.35, 0.2) * bump(25, 14), 0.2, 1)
    body.cycle[:, joint("pelvis_list")] *= drop
    _lean(body, size(8, 4))
    return body


def orthosis(body: Body, effects: Effects) -> Body:
    """An ankle-foot orthosis on the right: half the ankle's range, 6 (3) more dorsiflexion in swing and at
    contact*.

    No effect on the knee in swing or on the hip (Tyson et al., Clin Rehabil 2013; 27: 879-891).
    """
    body, size = _copy(body), effects.size
    _scale(body, joint("ankle_angle", "r"), 1 - min(size(0.5, 0.15), 0.85))
    _scale(body, joint("subtalar_angle", "r"), 0.3)
    _shift(body, joint("ankle_angle", "r"), size(2, 2), sitting=1.0)
    body.cycle[:, joint("ankle_angle", "r")] += size(5, 3) * (bump(82, 12) + bump(0, 8))
    return body


IMPAIRMENTS: dict[str, Change] = {
    "LLPU transtibial": transtibial,
    "LLPU transfemoral": transfemoral,
    "stroke": stroke,
    "SCI": spinal_cord,
    "TBI": brain_injury,
}


@dataclass(frozen=True)
class Device:
    """An assistive device.

    change: what it does to the body.
    speed, cadence: of the same person, with it over without it.
    """

    change: Change
    speed: float
    cadence: float


DEVICES: dict[str, Device] = {
    "none": Device(no_device, 1.0, 1.0),
    "cane": Device(cane, 0.83, 0.90),
    "walker": Device(walker, 0.62, 0.64),
    "crutches": Device(crutches, 0.74, 0.76),
    "orthosis": Device(orthosis, 1.05, 1.02),
}
"""Speed and cadence with hand-held devices: Demir and Yildirim, Neurosciences (Riyadh) 2019; 24: 36-43, table 2 (18
people). With an orthosis both rise (Choo and Chang, Sci Rep 2021, s41598-021-95449-x); by how much is chosen."""
