"""A recording from positions of markers or keypoints: what all readers of such files share."""

from biomechgpt.recordings import markers
from biomechgpt.recordings.markers import Points
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording, check_time


def recording_of(name: str, points: Points, settings: ReaderSettings) -> Recording:
    """The recording of a person's points. Joints that the set of points does not tell are absent.

    name: the file, in messages. Raises InputError for points that are no person or of no known set, and for a
    missing engine.
    """
    check_time(name, points.time_s, settings)
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
        marker_residuals_m=fitted.residuals_m,
    )
