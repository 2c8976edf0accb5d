"""Inverse kinematics by OpenSim on a model of the person: angles to markers and back."""

import numpy as np
import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX
from biomechgpt.recordings import readers
from biomechgpt.recordings.markers import opensim_engine
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.trc import parse

opensim = pytest.importorskip("opensim", reason="needs pip install '.[opensim]'")
RATE_HZ, FRAMES = 60.0, 45
LEG_M = {"hip_flexion": (0.0, -0.07, 0.08), "knee_angle": (0.0, -0.42, 0.0), "ankle_angle": (0.0, -0.40, 0.0)}


def body(model, name):
    result = opensim.Body(name, 5.0, opensim.Vec3(0), opensim.Inertia(1, 1, 1))
    model.addBody(result)
    return result


def planar_model(path):
    """A pelvis that moves freely and two legs of three hinges, each segment with three markers.

    Its coordinates have the names of OpenSim's own models."""
    model = opensim.Model()
    model.setName("legs")
    pelvis = body(model, "pelvis")
    free = opensim.FreeJoint("ground_pelvis", model.getGround(), pelvis)
    # A free joint turns about X, Y and Z: list, rotation, tilt.
    for i, name in enumerate(("list", "rotation", "tilt", "tx", "ty", "tz")):
        free.upd_coordinates(i).setName(f"pelvis_{name}")
    model.addJoint(free)
    segments = [("pelvis", pelvis)]
    for side, sign in (("r", 1), ("l", -1)):
        parent = pelvis
        for joint, (x, y, z) in LEG_M.items():
            child = body(model, f"{joint}_{side}_segment")
            place, turn = opensim.Vec3(x, y, sign * z), opensim.Vec3(0)
            hinge = opensim.PinJoint(
                f"{joint}_{side}_hinge", parent, place, turn, child, opensim.Vec3(0), turn
            )
            hinge.updCoordinate().setName(f"{joint}_{side}")
            model.addJoint(hinge)
            segments.append((f"{joint}_{side}", child))
            parent = child
    for name, segment in segments:
        for k, offset in enumerate([(0.06, -0.1, 0.05), (-0.05, -0.25, 0.03), (0.02, -0.05, -0.06)]):
            model.addMarker(opensim.Marker(f"{name}.{k}", segment, opensim.Vec3(*offset)))
    model.finalizeConnections()
    model.printToXML(str(path))
    return model


def marker_file(model, angles, begin_s=0.0, scale=1.0, units="m"):
    """A .trc of the model's markers, in the poses of {coordinate: (T,) in radians or metres}."""
    state = model.initSystem()
    names = [model.getMarkerSet().get(i).getName() for i in range(model.getMarkerSet().getSize())]
    positions = np.empty((FRAMES, len(names), 3))
    for t in range(FRAMES):
        for name, values in angles.items():
            model.getCoordinateSet().get(name).setValue(state, float(values[t]))
        for k, name in enumerate(names):
            place = model.getMarkerSet().get(name).getLocationInGround(state)
            positions[t, k] = [place.get(axis) for axis in range(3)]
    positions[10:13, 4] = np.nan  # a marker that was not seen for a while
    text = opensim_engine._trc(begin_s + np.arange(FRAMES) / RATE_HZ, names, scale * positions)
    return text.replace("\tm\t", f"\t{units}\t")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """(model's path, the .trc, angles that it was made of)."""
    folder = tmp_path_factory.mktemp("opensim")
    model = planar_model(folder / "legs.osim")
    angles = walking()
    (folder / "walk.trc").write_text(marker_file(model, angles))
    return folder / "legs.osim", folder / "walk.trc", angles


def walking():
    """{coordinate: (T,)} of a walk."""
    phase = 2 * np.pi * np.arange(FRAMES) / RATE_HZ
    angles = {"pelvis_ty": np.full(FRAMES, 0.95), "pelvis_tx": 1.2 * np.arange(FRAMES) / RATE_HZ}
    for side, late in (("r", 0.0), ("l", np.pi)):
        angles[f"hip_flexion_{side}"] = 0.35 * np.sin(phase + late)
        angles[f"knee_angle_{side}"] = -0.5 + 0.4 * np.cos(phase + late)
        angles[f"ankle_angle_{side}"] = 0.2 * np.cos(2 * phase + late)
    return angles


def test_late_times_and_millimetres_of_an_unknown_set(walk, tmp_path):
    """A file that begins after an hour, in millimetres, and that does not say so."""
    path = tmp_path / "late.trc"
    angles = walking()
    path.write_text(marker_file(planar_model(tmp_path / "legs.osim"), angles, 4000.0, 1000.0, ""))
    recording = readers.read(str(path), ReaderSettings(opensim_model=str(tmp_path / "legs.osim")))
    assert len(recording.time_s) == FRAMES
    np.testing.assert_allclose(recording.time_s, 4000 + np.arange(FRAMES) / RATE_HZ, atol=1e-4)
    error = np.degrees(recording.angles_rad[:, INDEX["knee_angle_r"]] - angles["knee_angle_r"])[8:-8]
    assert np.abs(error).max() < 0.6
    assert np.nanmax(recording.marker_residuals_m["pelvis.0"]) < 0.002
    assert "markers of no known set: taken as Y-up, in mm" in recording.notes


def test_angles_come_back_from_the_markers_of_a_model(walk):
    model, path, angles = walk
    recording = readers.read(str(path), ReaderSettings(opensim_model=str(model)))
    middle = slice(8, -8)  # the low-pass filter changes the ends
    for name, values in angles.items():
        if name in INDEX:
            error = np.degrees(recording.angles_rad[:, INDEX[name]] - values)[middle]
            assert np.abs(error).max() < 0.6, name
    assert set(np.array(list(INDEX))[recording.joint_mask]) == {name for name in angles if name in INDEX}
    assert np.nanmax(recording.marker_residuals_m["pelvis.0"]) < 0.002
    assert np.isnan(recording.marker_residuals_m["hip_flexion_r.1"][10:13]).all()
    assert any("OpenSim's inverse kinematics of 21 markers" in note for note in recording.notes)


def test_markers_of_another_person_go_to_the_other_engine(walk):
    model, path, _ = walk
    _, markers = opensim_engine.model_markers(str(model))
    assert opensim_engine.matches(parse("walk.trc", path.read_bytes()).names, markers)
    renamed = parse("walk.trc", path.read_bytes().replace(b"\tpelvis.", b"\tsacrum.").replace(b"_r.", b"_x."))
    assert not opensim_engine.matches(renamed.names, markers)  # 9 of its 21
    with pytest.raises(InputError, match=r"walk\.trc: expected markers or keypoints of a known set"):
        recording_of("walk.trc", renamed, ReaderSettings(opensim_model=str(model)))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file"),
        (b"not XML", "syntax error"),
        (b"<OpenSimDocument/>", "<OpenSimDocument>"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><OpenSimDocument/>', "document type"),
        ('<?xml version="1.0"?><!DOCTYPE x><OpenSimDocument/>'.encode("utf-16"), "document type"),
        (b'<?xml version="1.0" encoding="klingon"?><OpenSimDocument/>', "encoding"),
    ],
)
def test_what_is_no_model_is_named(walk, tmp_path, content, found):
    path = tmp_path / "model.osim"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"(?i)opensim_model: .*{found}"):
        readers.read(str(walk[1]), ReaderSettings(opensim_model=str(path)))


def test_a_model_that_opensim_cannot_load_is_an_error_of_ours(walk, tmp_path):
    names = "".join(f'<Marker name="{name}"/>' for name in opensim_engine.model_markers(str(walk[0]))[1])
    (tmp_path / "empty.osim").write_text(
        f'<OpenSimDocument Version="40000"><Model name="m"><MarkerSet><objects>{names}</objects></MarkerSet>'
        "</Model></OpenSimDocument>"
    )
    with pytest.raises(InputError, match=r"walk\.trc: expected markers that the OpenSim model can follow"):
        readers.read(str(walk[1]), ReaderSettings(opensim_model=str(tmp_path / "empty.osim")))


def test_without_the_package_the_extra_is_named(walk, monkeypatch):
    monkeypatch.setattr(opensim_engine, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'biomechgpt\[opensim\]'"):
        readers.read(str(walk[1]), ReaderSettings(opensim_model=str(walk[0])))
