"""Export: what a cohort's own readers, and OpenSim's parser, make of the files that it is written to."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from biomechgpt.cohort import Cohort, CohortSettings, make_cohort
from biomechgpt.cohort.export import export_mot
from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.motion.trial import FIXED, from_row
from biomechgpt.recordings.readers import ReaderSettings, opensim
from opensim_files import mot, walk


def people(folder):
    """Three participants, two recordings each: every joint moving, one without an arm, one who only stands."""
    lines = ["path,participant,source,activity,walking_speed,site"]
    for p in range(3):
        for t in range(2):
            columns = walk(2 + p)
            for i, name in enumerate(NAMES):
                columns[name] = columns.get(name, 0) + 3 * np.sin(columns["time"] * (i + p + t + 1))
            columns["pelvis_rotation"] = 200 * columns["time"]  # turns round and round
            if (p, t) == (0, 1):
                del columns["arm_flex_l"]
            if (p, t) == (1, 1):
                columns |= {k: -0.05 * v for k, v in columns.items() if k.startswith("knee")}  # never bent
            path = folder / f"p{p}" / f"{t}.mot"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(mot(columns))
            lines.append(
                f'p{p}/{t}.mot,person {p},ward,"walking, {t}",{1 + p / 7 if t else ""},{"" if t else "a"}'
            )
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    return folder


def trials(cohort):
    return {row["trial"]: from_row(row) for row in Cohort(cohort).table().to_pylist()}


@pytest.mark.cluster
def test_a_cohort_of_the_export_is_the_same_cohort(ray_cluster, tmp_path):
    how = ReaderSettings(missing_joints="neutral")
    signed = how.model_copy(update={"knee_flexion": "negative"})  # which some files' data would not tell
    first = make_cohort(
        CohortSettings(recordings=str(people(tmp_path / "in")), readers=signed), str(tmp_path)
    )
    export = export_mot(first, str(tmp_path))
    assert export.kind == "recordings"
    assert export_mot(first, str(tmp_path)) == export
    again = make_cohort(CohortSettings(recordings=export.uri, readers=how, shard_trials=1), str(tmp_path))
    assert Cohort(again).info.annotations == Cohort(first).info.annotations
    assert Cohort(again).info.quarantined == []
    before, after = trials(first), trials(again)
    assert before.keys() == after.keys()
    for name, one in before.items():
        two = after[name]
        assert (two.participant, two.source, two.provenance, two.split) == (
            one.participant,
            one.source,
            one.provenance,
            one.split,
        )
        assert two.annotations == one.annotations
        assert two.frame_rate_hz == one.frame_rate_hz
        np.testing.assert_allclose(np.degrees(two.angles_rad), np.degrees(one.angles_rad), rtol=0, atol=1e-4)
        np.testing.assert_allclose(two.pelvis[:, :3], one.pelvis[:, :3], atol=1e-6)
        turned = np.abs(np.sum(two.pelvis[:, 3:] * one.pelvis[:, 3:], axis=1))
        np.testing.assert_allclose(turned, 1, atol=1e-6)
        np.testing.assert_array_equal(two.joint_mask, one.joint_mask)
    assert not before["p0/1.mot"].joint_mask[INDEX["arm_flex_l"]]


@pytest.mark.cluster
def test_a_synthetic_cohort_stays_synthetic(ray_cluster, tmp_path):
    how = CohortSettings(simulator={"scale": 0.02, "duration_range_s": (3, 5), "test_range_s": (3, 5)})
    export = export_mot(make_cohort(how, str(tmp_path)), str(tmp_path))
    again = make_cohort(CohortSettings(recordings=export.uri), str(tmp_path))
    assert (export.provenance, again.provenance) == ("synthetic", "synthetic")
    assert set(Cohort(again).table()["provenance"].to_pylist()) == {"synthetic"}


@pytest.mark.cluster
def test_two_trials_never_share_a_file(ray_cluster, tmp_path):
    cohort = make_cohort(CohortSettings(recordings=str(people(tmp_path / "in"))), str(tmp_path))
    (shard,) = (tmp_path / "cohort").rglob("part-*.parquet")
    table = pq.read_table(shard)
    names = table["trial"].to_pylist()
    names[0] = names[1].removesuffix(".mot")
    pq.write_table(table.set_column(0, FIXED.field("trial"), [names]), shard)
    with pytest.raises(InputError, match=r"expected a file a trial, found several trials for 'p"):
        export_mot(cohort, str(tmp_path))
    assert not list((tmp_path / "recordings").rglob("*.mot"))


def opensim_storage(text):
    """Columns by the rules of OpenSim/Common/Storage.cpp: the first line names the data, `key=value` lines up
    to endheader, then labels and numbers apart by tabs, as many as the header says."""
    _, *lines = text.split("\n")
    end = lines.index("endheader")
    header = dict(line.split("=") for line in lines[:end] if "=" in line)
    labels, *rows = [line.split("\t") for line in lines[end + 1 :] if line]
    table = np.array(rows, dtype=float)
    assert table.shape == (int(header["nRows"]), int(header["nColumns"])) == (len(rows), len(labels))
    assert float(header["version"]) == 1
    return header, dict(zip(labels, table.T, strict=True))


def test_opensims_own_parser_takes_the_file():
    rng = np.random.default_rng(0)
    angles = rng.uniform(-2, 2, (50, 34))
    pelvis = np.tile([0.1, 0.9, -0.2, 1.0, 0, 0, 0], (50, 1))
    mask = np.arange(34) != INDEX["wrist_dev_l"]
    header, columns = opensim_storage(opensim.write(np.arange(50) / 30, angles, pelvis, mask))
    assert header["inDegrees"] == "yes"
    assert list(columns)[:7] == ["time", "pelvis_tilt", "pelvis_list", "pelvis_rotation", "pelvis_tx",
                                 "pelvis_ty", "pelvis_tz"]  # fmt: skip
    assert list(columns)[7:] == [name for name in NAMES if name != "wrist_dev_l"]
    assert (np.diff(columns["time"]) > 0).all()
    np.testing.assert_allclose(columns["pelvis_ty"], 0.9)
    np.testing.assert_allclose(columns["hip_flexion_r"], np.degrees(angles[:, 0]), atol=1e-7)
