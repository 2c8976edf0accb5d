"""A recording from positions of markers or keypoints: what all readers of such files share."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from biomechgpt.recordings import markers
from biomechgpt.recordings.markers import Points, opensim_engine
from biomechgpt.recordings.readers.recording import (
    Columns,
    ReaderSettings,
    Recording,
    absent,
    assemble,
    check_time,
)


def recording_of(name: str, points: Points, settings: ReaderSettings) -> Recording:
    """The recording of a person's points. Joints that the set of points does not tell are absent.

    name: the file, in messages. Raises InputError for points that are no person or of no known set, and for a
    missing engine.
    """
    # Programs write 0, 0, 0 for a point that was not seen.
    seen = np.isfinite(points.positions).all(axis=2) & (points.positions != 0).any(axis=2)
    points = replace(points, positions=np.where(seen[:, :, None], points.positions, np.nan))
    check_time(name, points.time_s, settings, lambda i: f"frame {i}", points.format)
    if settings.opensim_model is not None:
        model, of_model = opensim_engine.model_markers(settings.opensim_model)
        if opensim_engine.matches(points.names, of_model):
            return _by_opensim(name, points, model, of_model, settings)
        common = len(set(of_model) & set(points.names))
        points = points.noted(
            f"{common} of the {len(of_model)} markers of the OpenSim model: it was not used"
        )
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


def _by_opensim(
    name: str, points: Points, model: bytes, of_model: list[str], settings: ReaderSettings
) -> Recording:
    """The recording that OpenSim's inverse kinematics makes of the points, with the coordinates of its model."""
    points = markers.in_the_world(name, points)
    motion = opensim_engine.solve(name, points, model, of_model)
    residuals = motion.residuals_m
    file = Columns(
        format=points.format,
        values=motion.values,
        units="degrees",
        place=lambda i: f"frame {i}",
        time_s=motion.time_s,
        declared_rate_hz=points.declared_rate_hz,
        notes=(
            *points.notes,
            f"OpenSim's inverse kinematics of {len(residuals)} markers, residual {_rms_mm(residuals):.0f} mm (RMS)",
        ),
    )
    return replace(assemble(name, file, settings), marker_residuals_m=residuals)


def _rms_mm(residuals_m: Mapping[str, np.ndarray]) -> float:
    every = np.concatenate([*residuals_m.values(), np.zeros(0)])
    return 1000 * float(np.sqrt(np.nanmean(every**2))) if len(every) else float("nan")
