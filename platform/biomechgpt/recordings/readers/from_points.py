"""A recording from positions of markers or keypoints: what all readers of such files share."""

from dataclasses import replace

import numpy as np

from biomechgpt.recordings import markers
from biomechgpt.recordings.markers import Points
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording, absent, check_time


def recording_of(name: str, points: Points, settings: ReaderSettings) -> Recording:
    """The recording of a person's points. Joints that the set of points does not tell are absent.

    name: the file, in messages. Raises InputError for points that are no person or of no known set, and for a
    missing engine.
    """
    # Programs write 0, 0, 0 for a point that was not seen.
    seen = np.isfinite(points.positions).all(axis=2) & (points.positions != 0).any(axis=2)
    points = replace(points, positions=np.where(seen[:, :, None], points.positions, np.nan))
    check_time(name, points.time_s, settings, lambda i: f"frame {i}", points.format)
    fitted = markers.fit(name, points)
    return Recording(
        time_s=fitted.time_s,
        angles_rad=fitted.angles_rad,
        pelvis=fitted.pelvis,
        joint_mask=fitted.joint_mask,
        knee_flexion="negative",
        format=points.format,
        declared_rate_hz=points.declared_rate_hz,
        notes=fitted.notes,
        lacking=absent(name, fitted.joint_mask, settings),
        marker_residuals_m=fitted.residuals_m,
    )
