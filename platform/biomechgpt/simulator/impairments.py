"""Effects of impairments and assistive devices on a simulated body: published patterns, scaled by severity.

Each function takes a `Body` and returns one with the right side affected; the left side is its mirror image.
The patterns are those of clinical textbooks (Perry and Burnfield, Gait Analysis, 2nd ed. 2010; for stroke
also Olney and Richards, Gait & Posture 4 (1996) 136; for prostheses Sagawa et al., Gait & Posture 33 (2011)
511). Their sizes are chosen freely, so that they are about as hard for a simple classifier as the paper's data.
Knows nothing about questions or predictions.
"""

from collections.abc import Callable

import numpy as np

from biomechgpt.simulator.movement import CYCLE, Body, bump, joint

_PHASE = 2 * np.pi * np.arange(CYCLE) / CYCLE


def _copy(body: Body, rhythm: float = 0.0) -> Body:
    return Body(body.cycle.copy(), body.stand.copy(), body.sit.copy(), body.leg_m, body.rhythm + rhythm)


def _shift(body: Body, i: int, degrees: float, *, sitting: float = 0.0) -> None:
    body.cycle[:, i] += degrees
    body.stand[i] += degrees
    body.sit[i] += degrees * sitting


def _scale(body: Body, i: int, factor: float) -> None:
    """Scale a joint's excursion about its standing angle."""
    body.cycle[:, i] = body.stand[i] + factor * (body.cycle[:, i] - body.stand[i])


def cautious(body: Body, severity: float) -> Body:
    """Cautious gait: less motion of arms and trunk, a wider base, slightly bent knees and trunk."""
    body, s = _copy(body), severity
    for side in "rl":
        _scale(body, joint("arm_flex", side), 1 - 0.35 * s)
        _shift(body, joint("arm_add", side), -4 * s)
        _shift(body, joint("hip_adduction", side), -2 * s)
        _shift(body, joint("knee_angle", side), -3.5 * s)
    _scale(body, joint("lumbar_rotation"), 1 - 0.4 * s)
    _shift(body, joint("lumbar_extension"), -3 * s)
    return body


def stroke(body: Body, severity: float) -> Body:
    """Stiff knee, circumduction, equinus; a flexed, still arm; a shorter stance on the affected side."""
    body, s = _copy(body, 0.3 * severity), severity
    _scale(body, joint("knee_angle", "r"), 1 - 0.5 * s)
    _scale(body, joint("hip_flexion", "r"), 1 - 0.3 * s)
    _scale(body, joint("ankle_angle", "r"), 1 - 0.4 * s)
    _shift(body, joint("ankle_angle", "r"), -3 * s, sitting=1.0)
    body.cycle[:, joint("ankle_angle", "r")] -= 10 * s * bump(80, 12)
    body.cycle[:, joint("hip_adduction", "r")] -= 11 * s * bump(72, 11)
    body.cycle[:, joint("subtalar_angle", "r")] += 8 * s * bump(85, 14)
    _scale(body, joint("arm_flex", "r"), 1 - 0.85 * s)
    _scale(body, joint("elbow_flex", "r"), 1 - 0.7 * s)
    _shift(body, joint("elbow_flex", "r"), 42 * s, sitting=0.5)
    _shift(body, joint("arm_rot", "r"), 20 * s, sitting=0.7)
    _shift(body, joint("pro_sup", "r"), 30 * s, sitting=1.0)
    _shift(body, joint("wrist_flex", "r"), 25 * s, sitting=1.0)
    _shift(body, joint("lumbar_bending"), -3 * s, sitting=0.8)
    body.cycle[:, joint("lumbar_bending")] -= 4 * s * bump(72, 14)
    return body


def transtibial(body: Body, severity: float) -> Body:
    """Prosthesis below the knee: no push-off, early heel rise, little knee flexion in stance, trunk lean to the
    side."""
    s = 0.3 + 0.7 * severity
    body = _copy(body, 0.15 * s)
    _scale(body, joint("ankle_angle", "r"), 1 - 0.65 * s)
    _scale(body, joint("mtp_angle", "r"), 1 - 0.8 * s)
    body.cycle[:, joint("ankle_angle", "r")] += 7 * s * bump(62, 8)
    _scale(body, joint("subtalar_angle", "r"), 1 - s)
    body.cycle[:, joint("knee_angle", "r")] += 9 * s * bump(14, 8) - 6 * s * bump(44, 7)
    body.cycle[:, joint("lumbar_bending")] += 3.5 * s * bump(25, 13)
    body.cycle[:, joint("hip_flexion", "r")] += 4 * s * bump(70, 12)
    return body


def transfemoral(body: Body, severity: float) -> Body:
    """Prosthesis above the knee: a straight knee in stance, less knee flexion in swing, hip hiking, vaulting of the
    sound ankle, trunk lean over the prosthesis, a wide base."""
    s = 0.3 + 0.7 * severity
    body = transtibial(_copy(body, 0.15 * s), severity)
    body.cycle[:, joint("knee_angle", "r")] += 8 * s * (bump(14, 8) + bump(72, 9)) + 6 * s * bump(44, 7)
    body.cycle[:, joint("hip_flexion", "r")] += 6 * s * bump(45, 14)
    body.cycle[:, joint("lumbar_bending")] += 4 * s * bump(25, 13) - 3 * s * bump(72, 13)
    body.cycle[:, joint("ankle_angle", "l")] -= 9 * s * bump(30, 10)
    _shift(body, joint("hip_adduction", "r"), -5 * s)
    _shift(body, joint("lumbar_extension"), -2 * s)
    return body


def spinal_cord(body: Body, severity: float) -> Body:
    """Crouch gait: stiff knees, adducted thighs, dropped feet, trunk forward; the right side a little more."""
    body, s = _copy(body), severity
    for side, share in (("r", 1.1), ("l", 0.9)):
        k = s * share
        _scale(body, joint("knee_angle", side), 1 - 0.35 * k)
        _shift(body, joint("knee_angle", side), -17 * k)
        _shift(body, joint("hip_flexion", side), 12 * k)
        _shift(body, joint("hip_adduction", side), 5 * k, sitting=0.6)
        body.cycle[:, joint("ankle_angle", side)] -= 9 * k * bump(80 if side == "r" else 30, 12)
        _shift(body, joint("arm_add", side), -8 * k)
    _shift(body, joint("lumbar_extension"), -9 * s, sitting=0.6)
    return body


def brain_injury(body: Body, severity: float) -> Body:
    """A wide base, a stiff neck, abducted arms with less swing. Unsteadiness is added per trial."""
    body, s = _copy(body), severity
    for side in "rl":
        _shift(body, joint("hip_adduction", side), -5 * s)
        _shift(body, joint("arm_add", side), -9 * s, sitting=0.3)
        _scale(body, joint("arm_flex", side), 1 - 0.45 * s)
        _shift(body, joint("knee_angle", side), -4 * s)
    _shift(body, joint("neck_extension"), -8 * s, sitting=1.0)
    body.cycle[:, joint("lumbar_bending")] *= 1 + 0.8 * s
    return body


def _grip(body: Body, side: str) -> None:
    """A hand that holds a handle: forearm pronated by half, wrist extended, hand deviated."""
    _shift(body, joint("pro_sup", side), 20)
    _shift(body, joint("wrist_flex", side), -25)
    _shift(body, joint("wrist_dev", side), 12)


def cane(body: Body) -> Body:
    """A cane in the left hand, opposite to the affected side; it moves with the right leg."""
    body = _copy(body)
    i, e = joint("arm_flex", "l"), joint("elbow_flex", "l")
    body.stand[[i, e]] += [5, 7]
    body.cycle[:, i] = body.stand[i] + 10 * np.cos(_PHASE)
    body.cycle[:, e] = body.stand[e] + 5 * np.cos(_PHASE)
    _shift(body, joint("arm_add", "l"), -4)
    _grip(body, "l")
    body.cycle[:, joint("lumbar_bending")] -= 2
    return body


def walker(body: Body) -> Body:
    """Both hands on a walker: arms forward and still, trunk leaning forward."""
    body = _copy(body)
    for side in "rl":
        for name, held in (("arm_flex", 13.0), ("elbow_flex", 12.0)):
            _scale(body, joint(name, side), 0.4)
            _shift(body, joint(name, side), held)
        _grip(body, side)
    _shift(body, joint("lumbar_extension"), -6)
    _shift(body, joint("neck_extension"), 4)
    return body


def crutches(body: Body) -> Body:
    """Two crutches that swing forward with the right leg; arms abducted, elbows nearly straight."""
    body = _copy(body)
    for side in "rl":
        i = joint("arm_flex", side)
        body.stand[i] += 5
        body.cycle[:, i] = body.stand[i] + 11 * np.cos(_PHASE)
        _scale(body, joint("elbow_flex", side), 0.6)
        _shift(body, joint("elbow_flex", side), 5)
        _shift(body, joint("arm_add", side), -7)
        _grip(body, side)
    body.cycle[:, joint("lumbar_extension")] -= 3 * (1 + np.cos(_PHASE))
    return body


def orthosis(body: Body) -> Body:
    """An ankle-foot orthosis on the right: the ankle hardly moves and the foot does not drop."""
    body = _copy(body)
    _scale(body, joint("ankle_angle", "r"), 0.3)
    _scale(body, joint("subtalar_angle", "r"), 0.15)
    _shift(body, joint("ankle_angle", "r"), 3, sitting=1.0)
    body.cycle[:, joint("ankle_angle", "r")] += 2.0
    body.cycle[:, joint("knee_angle", "r")] -= 5 * bump(10, 7)
    return body


IMPAIRMENTS: dict[str, Callable[[Body, float], Body]] = {
    "LLPU transtibial": transtibial,
    "LLPU transfemoral": transfemoral,
    "stroke": stroke,
    "SCI": spinal_cord,
    "TBI": brain_injury,
}
DEVICES: dict[str, Callable[[Body], Body]] = {
    "none": lambda body: body,
    "cane": cane,
    "walker": walker,
    "crutches": crutches,
    "orthosis": orthosis,
}
