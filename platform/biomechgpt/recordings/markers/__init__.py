"""Joint angles from positions of markers or keypoints, by inverse kinematics.

points   the positions: units, upward axis and noise recognized from the data
sets     named markers and keypoints, and where on the body they are
scaling  lengths of the segments, from the recording
model    the scaled body as a MuJoCo model
solve    inverse kinematics with mink
fit      all of it: points in, joint angles and residuals out
opensim_engine  the same with OpenSim, on a model of the person that somebody scaled

Knows nothing about files of recordings. mujoco and mink are optional (`pip install 'biomechgpt[markers]'`); only
`model` and `solve` need them. So is OpenSim (`pip install 'biomechgpt[opensim]'`).
"""

from biomechgpt.recordings.markers.fit import Fit, fit, in_the_world
from biomechgpt.recordings.markers.points import Points
from biomechgpt.recordings.markers.sets import known

__all__ = ["Fit", "Points", "fit", "in_the_world", "known"]
