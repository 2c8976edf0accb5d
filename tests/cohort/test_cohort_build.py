"""The cohort: simulated and recorded, end to end through Ray, and what every bad input gets."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import real_recordings
from biomechgpt.cohort import Cohort, CohortSettings, make_cohort
from biomechgpt.cohort import folder as cohort_folder
from biomechgpt.cohort.annotations import AnnotationTable
from biomechgpt.cohort.folder import open_folder
from biomechgpt.cohort.splits import SPLITS, SplitSettings, assign
from biomechgpt.cohort.writing import join_tables, pack_participants
from biomechgpt.core import artifact, settings, storage
from biomechgpt.core.settings import InputError
from biomechgpt.motion.resampling import resample
from biomechgpt.motion.trial import from_row, schema
from opensim_files import mot, walk

CONFIGS = Path(__file__).parents[2] / "configs" / "cohort"
TINY = settings.load(CohortSettings, CONFIGS / "tiny.yaml")


@pytest.mark.parametrize("name", ["demo", "tiny", "recordings"])
def test_shipped_settings_are_valid(name):
    settings.load(CohortSettings, CONFIGS / f"{name}.yaml")


@pytest.fixture(scope="module")
def simulated(ray_cluster, tmp_path_factory):
    return make_cohort(TINY, str(tmp_path_factory.mktemp("tiny")))


@pytest.mark.cluster
def test_a_simulated_cohort(simulated):
    card, table = simulated.read_json("cohort.json"), Cohort(simulated).table()
    assert simulated.kind == "cohort"
    assert simulated.provenance == "synthetic"
    assert table.schema.equals(schema(card["annotations"]))
    assert table.num_rows == card["trials"] == 24 * 5
    assert card["participants"] == {"train": 15, "validation": 4, "test": 5}
    assert card["quarantined"] == []
    frames = sum(table["n_frames"].to_pylist())
    assert card["hours"] == pytest.approx(frames / 30 / 3600, abs=1e-4)
    assert set(table["provenance"].to_pylist()) == {"synthetic"}
    trial = from_row(table.slice(7, 1).to_pylist()[0])
    assert trial.angles_rad.dtype == np.float32
    assert np.isfinite(trial.angles_rad).all()


@pytest.mark.cluster
def test_latent_traits_lie_beside_the_cohort_not_in_it(simulated):
    latent, table = pq.read_table(simulated.path("latent.parquet")), Cohort(simulated).table()
    assert set(latent["participant"].to_pylist()) == set(table["participant"].to_pylist())
    assert {"severity", "unsteady", "fell"} <= set(latent.column_names)
    assert set(latent.column_names) & set(table.column_names) == {"participant"}


@pytest.mark.cluster
def test_nobody_is_in_two_splits_or_two_shards(simulated):
    homes: dict[str, set] = {}
    for name in storage.list_files(simulated.path("trials")):
        shard = pq.read_table(simulated.path(f"trials/{name}"), columns=["participant", "split"]).to_pylist()
        assert len(shard) <= TINY.shard_trials
        for row in shard:
            homes.setdefault(row["participant"], set()).add((name, row["split"]))
    assert len(homes) == 24
    assert all(len(places) == 1 for places in homes.values())
    assert {split for places in homes.values() for _, split in places} == set(SPLITS)


@pytest.mark.cluster
def test_the_same_settings_give_the_same_bytes_and_another_seed_others(simulated, tmp_path):
    again = make_cohort(TINY, str(tmp_path))
    assert again.fingerprint == simulated.fingerprint
    assert again.manifest["files"] == simulated.manifest["files"]
    other = TINY.model_copy(update={"simulator": TINY.simulator.model_copy(update={"seed": 1})})
    assert make_cohort(other, str(tmp_path)).manifest["files"] != simulated.manifest["files"]


@pytest.mark.cluster
def test_reading_some_columns(simulated):
    assert Cohort(simulated).table(["split", "trial"]).column_names == ["split", "trial"]
    with pytest.raises(pa.ArrowInvalid, match="nonsense"):
        Cohort(simulated).table(["nonsense"])


def folder_of(path: Path, participants: int = 4, trials: int = 2, at: str = "p") -> Path:
    """A folder of recordings p0/a.mot, ... with annotations.csv; of the same people in another place, `at`."""
    lines = ["path,participant,activity,walking_speed,site"]
    for p in range(participants):
        for t in range(trials):
            file = path / f"{at}{p}" / f"{'ab'[t]}.mot"
            file.parent.mkdir(parents=True, exist_ok=True)
            columns = walk()
            columns["hip_flexion_r"] = columns["hip_flexion_r"] + p + 0.1 * t + 0.01 * len(at)
            file.write_text(mot(columns))
            lines.append(
                f"{at}{p}/{'ab'[t]}.mot,person {p},overground walking,{'' if t else 1 + p / 10},ward"
            )
    (path / "annotations.csv").write_text("\n".join(lines) + "\n")
    return path


def made_from(folder: Path, tmp_path: Path, **more) -> artifact.Artifact:
    return make_cohort(CohortSettings(recordings=str(folder), **more), str(tmp_path / "out"))


@pytest.mark.cluster
def test_a_folder_of_recordings(ray_cluster, tmp_path):
    folder = folder_of(tmp_path / "in")
    (folder / "p1" / "b.mot").write_text(mot(walk())[:-200])
    (folder / "stray.MOT").write_text(mot(walk()))
    (folder / "notes.txt").write_text("no recording")
    cohort = made_from(folder, tmp_path)
    card, table = cohort.read_json("cohort.json"), Cohort(cohort).table()
    assert cohort.provenance == "recorded"
    assert card["annotations"] == {"activity": "text", "walking_speed": "number", "site": "text"}
    assert card["trials"] == 7
    assert [item["path"] for item in card["quarantined"]] == ["p1/b.mot", "stray.MOT"]
    assert "p1/b.mot: line 208: expected 38 values" in card["quarantined"][0]["reason"]
    assert card["quarantined"][1]["reason"] == "no row in annotations.csv"
    rows = {row["trial"]: row for row in table.to_pylist()}
    assert rows["p2/a.mot"]["walking_speed"] == 1.2
    assert rows["p2/b.mot"]["walking_speed"] is None
    assert rows["p2/a.mot"]["participant"] == "person 2"
    assert rows["p2/a.mot"]["provenance"] == "recorded"
    trial = from_row(rows["p2/a.mot"])
    time = np.arange(len(trial.angles_rad)) / 30
    truth = -32 + 30 * np.sin(2 * np.pi * time)
    inner = slice(10, -10)
    np.testing.assert_allclose(np.degrees(trial.angles_rad[inner, 3]), truth[inner], atol=0.1)
    with pytest.raises(InputError, match=r"2 recordings cannot be used(.|\n)*p1/b.mot: line 208"):
        made_from(folder, tmp_path, strict=True)


@pytest.mark.cluster
def test_contents_not_places_make_the_fingerprint(ray_cluster, tmp_path):
    first, second = folder_of(tmp_path / "one"), folder_of(tmp_path / "two")
    cohort = made_from(first, tmp_path)
    assert made_from(second, tmp_path) == cohort
    marks = {open_folder(str(second)).checksum}
    file = second / "p0" / "a.mot"
    file.write_text(file.read_text().replace("5.0", "5.1", 1))
    marks.add(open_folder(str(second)).checksum)
    table = second / "annotations.csv"
    table.write_text(table.read_text().replace("ward", "home", 1))
    marks.add(open_folder(str(second)).checksum)
    assert len(marks) == 3


@pytest.mark.cluster
def test_many_recordings_are_hashed_in_tasks_to_the_same_checksum(ray_cluster, tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "one")
    (folder / "p0" / "gone.mot").symlink_to(tmp_path / "nowhere")  # cannot be read, and has its place too
    names = sorted(storage.list_files(str(folder)))
    here = cohort_folder.checksum(str(folder), names)
    monkeypatch.setattr(cohort_folder, "FILES_HASHED_HERE", 0)
    monkeypatch.setattr(cohort_folder, "FILES_OF_A_TASK", 2)
    assert cohort_folder.checksum(str(folder), names) == here
    assert cohort_folder.checksum(str(folder), names[1:]) != here


@pytest.mark.cluster
def test_too_much_is_wrong(ray_cluster, tmp_path):
    folder = folder_of(tmp_path / "in", participants=3, trials=1)
    whole = (folder / "p0" / "a.mot").read_text()
    (folder / "p0" / "a.mot").write_text("damaged")
    with pytest.raises(
        InputError, match=r"at least 3 participants .*found 2: person 1, person 2\n  p0/a.mot: "
    ):
        made_from(folder, tmp_path)
    (folder / "p1" / "a.mot").write_text(whole.replace("inDegrees=yes", "inDegrees=no"))
    with pytest.raises(InputError, match=r"2 of 3 are not\n  p0/a.mot: .*\n  p1/a.mot: .*look like degrees"):
        made_from(folder, tmp_path)
    assert not list((tmp_path / "out").rglob("*.parquet"))


@pytest.mark.cluster
def test_real_recordings_become_a_cohort(ray_cluster, tmp_path):
    shipped = made_from(real_recordings.SHIPPED, tmp_path, readers={"missing_joints": "neutral"})
    card = shipped.read_json("cohort.json")
    assert (card["trials"], card["quarantined"], shipped.provenance) == (3, [], "recorded")
    assert card["annotations"] == {"activity": "text"}


@pytest.mark.cluster
def test_further_real_recordings_become_a_cohort(ray_cluster, tmp_path):
    real_recordings.path_of("opensim/addbiomechanics/walking1.mot")
    # Markers and keypoints need an optional package.
    angles = tmp_path / "angles"
    shutil.copytree(real_recordings.SHARED, angles, ignore=shutil.ignore_patterns("markers"))
    card = made_from(angles, tmp_path, readers={"missing_joints": "error"}).read_json("cohort.json")
    assert (card["trials"], len(card["quarantined"])) == (20, 1)
    assert card["annotations"] == {"activity": "text"}
    assert all("missing arm_flex_r" in item["reason"] for item in card["quarantined"])


def text_of(**edits) -> str:
    """A .mot file whose columns were edited: name=function of the column."""
    return mot({name: edits[name](c.copy()) if name in edits else c for name, c in walk().items()})


def filled(slice_, value):
    def edit(column):
        column[slice_] = value
        return column

    return edit


FAULTS = {
    "spike.mot": (text_of(knee_angle_r=filled(77, 15.0)), "spike: knee_angle_r leaves its course"),
    "range.mot": (text_of(ankle_angle_l=lambda c: c + 75), "impossible angle: ankle_angle_l is"),
    "frozen.mot": (text_of(hip_adduction_r=filled(slice(60, 180), 3.0)), "frozen: hip_adduction_r keeps"),
    "short.mot": (mot(walk(0.4)), "too short: expected at least 0.5 s"),
    "jump.mot": (mot({k: np.delete(c, slice(50, 62)) for k, c in walk().items()}), "gap: every joint has no"),
    "sides.mot": (
        text_of(arm_flex_r=lambda c: 10 - c, arm_flex_l=lambda c: 10 - c),
        "mislabelled side: arms",
    ),
    "rate.mot": (mot(walk()), "rate mismatch: the annotation declares 60 Hz"),
}


@pytest.fixture
def faulty(tmp_path):
    """A folder of four people's good recordings and one bad one of each kind."""
    folder = folder_of(tmp_path / "in")
    table = folder / "annotations.csv"
    rows = [f"{line},{'frame_rate_hz' * (i == 0)}" for i, line in enumerate(table.read_text().splitlines())]
    for name, (text, _) in FAULTS.items():
        (folder / name).write_text(text)
        rows.append(f"{name},person 1,overground walking,,ward,{'60' * (name == 'rate.mot')}")
    table.write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.cluster
def test_each_fault_is_quarantined_with_its_reason(ray_cluster, faulty, tmp_path):
    card = made_from(faulty, tmp_path).read_json("cohort.json")
    assert card["trials"] == 8
    reasons = {item["path"]: item["reason"] for item in card["quarantined"]}
    assert reasons.keys() == FAULTS.keys()
    for name, (_, reason) in FAULTS.items():
        assert reasons[name].startswith(f"{name}: {reason}")
    with pytest.raises(
        InputError, match=r"7 recordings cannot be used\n  frozen.mot: frozen: hip_adduction_r"
    ):
        made_from(faulty, tmp_path, strict=True)


@pytest.mark.cluster
def test_gaps_are_interpolated_where_asked_and_the_row_says_so(ray_cluster, faulty, tmp_path):
    table = Cohort(made_from(faulty, tmp_path, quality={"interpolate_gaps_s": 0.15})).table()
    said = dict(zip(table["trial"].to_pylist(), table["repairs"].to_pylist(), strict=True))
    assert len(said) == 9
    assert said.pop("jump.mot") == "1 gap interpolated, longest 0.12 s"
    assert set(said.values()) == {None}


@pytest.mark.cluster
def test_duplicates_are_named_both(ray_cluster, tmp_path):
    folder = folder_of(tmp_path / "in")
    (folder / "p0" / "b.mot").write_text((folder / "p1" / "b.mot").read_text())
    text = (folder / "p2" / "b.mot").read_text()
    (folder / "p2" / "c.mot").write_text(text.replace("version=1", "version=1\nname=copy"))
    table = folder / "annotations.csv"
    table.write_text(table.read_text() + "p2/c.mot,person 2,overground walking,,ward\n")
    card = made_from(folder, tmp_path).read_json("cohort.json")
    assert {item["path"]: item["reason"] for item in card["quarantined"]} == {
        "p0/b.mot": "duplicate: the same content as p1/b.mot, annotated otherwise",
        "p1/b.mot": "duplicate: the same content as p0/b.mot, annotated otherwise",
        "p2/c.mot": "duplicate: the same content as p2/b.mot",
    }


@pytest.mark.cluster
def test_the_split_is_stored_and_can_be_predefined(ray_cluster, tmp_path):
    folder = folder_of(tmp_path / "in", trials=1)
    table = folder / "annotations.csv"
    where = ["split", "train", "test", "train", "train"]
    lines = zip(table.read_text().splitlines(), where, strict=True)
    table.write_text("\n".join(f"{line},{split}" for line, split in lines) + "\n")
    cohort = made_from(folder, tmp_path)
    stored = cohort.read_json("splits.json")
    assert stored["method"] == "predefined"
    assert stored["participants"]["person 1"] == "test"
    assert sorted(stored["participants"].values()) == ["test", "train", "train", "validation"]
    assert Cohort(cohort).info.annotations.keys() == {"activity", "walking_speed", "site"}
    rows = Cohort(cohort).table(["participant", "split"]).to_pylist()
    assert {row["participant"]: row["split"] for row in rows} == stored["participants"]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.integers(100, 2000))
def test_shards_are_bounded_in_bytes(sizes, most):
    """Participants' tables, of so many bytes each, in order; one that is larger than a shard is alone."""
    tables = [pa.table({"name": pa.array([i] * size, pa.int8())}) for i, size in enumerate(sizes)]
    parts = list(join_tables(iter(tables), most))
    assert pa.concat_tables(parts).equals(pa.concat_tables(tables))
    homes = [set(part["name"].to_pylist()) for part in parts]
    assert sum(map(len, homes)) == len(sizes)
    assert all(part.nbytes <= most or len(home) == 1 for part, home in zip(parts, homes, strict=True))


@pytest.fixture(scope="module")
def pair(ray_cluster, tmp_path_factory):
    """Two cohorts of the same four people: two sites, other recordings, another annotation."""
    root = tmp_path_factory.mktemp("pair")
    first = folder_of(root / "first", trials=1)
    second = folder_of(root / "second", at="home")
    table = second / "annotations.csv"
    table.write_text(table.read_text().replace("ward", "home").replace("walking_speed", "score"))
    made = [made_from(first, root), made_from(second, root, splits={"seed": 1})]
    splits = [Cohort(part).splits for part in made]
    assert splits[0] != splits[1]  # so that merging could let somebody cross
    return made


@pytest.mark.cluster
@hypothesis_settings(max_examples=4, deadline=None)
@given(st.integers(0, 9), st.booleans(), st.sampled_from([{}, {"method": "kfold", "folds": 3, "fold": 2}]))
def test_nobody_crosses_when_cohorts_are_merged(pair, tmp_path_factory, seed, apart, how):
    uris = [part.uri for part in pair]
    merged = make_cohort(
        CohortSettings(
            cohorts=uris,
            prefix={uris[1]: "B "} if apart else {},
            splits={"seed": seed, **how},
            shard_trials=3,
        ),
        str(tmp_path_factory.mktemp("merged")),
    )
    assert (merged.provenance, merged.metrics["trials"]) == ("recorded", 12)
    homes: dict[str, set] = {}
    for name in storage.list_files(merged.path("trials")):
        for row in pq.read_table(merged.path(f"trials/{name}")).to_pylist():
            homes.setdefault(row["participant"], set()).add((name, row["split"]))
    assert len(homes) == (8 if apart else 4)
    assert all(len(places) == 1 for places in homes.values())
    stored = Cohort(merged).splits
    assert {who: split for who, places in homes.items() for _, split in places} == stored


@pytest.mark.cluster
def test_a_merged_cohort_has_every_trial_as_it_was(pair, tmp_path):
    merged = make_cohort(CohortSettings(cohorts=[part.uri for part in pair]), str(tmp_path))
    known = Cohort(merged).info.annotations
    assert known == {"activity": "text", "walking_speed": "number", "site": "text", "score": "number"}
    rows = {row["trial"]: row for row in Cohort(merged).table().to_pylist()}
    for part in pair:
        for row in Cohort(part).table().to_pylist():
            mine = rows[row["trial"]]
            assert {k: v for k, v in mine.items() if k in row and k != "split"} == {
                k: v for k, v in row.items() if k != "split"
            }
    assert rows["p1/a.mot"]["score"] is None
    assert [part["fingerprint"] for part in merged.manifest["inputs"].values()] == [
        p.fingerprint for p in pair
    ]


@pytest.mark.cluster
def test_cohorts_that_do_not_go_together(pair, simulated, tmp_path):
    uris = [part.uri for part in pair]
    # One cohort beside itself under another name: everything of it is there twice.
    copy = storage.join(str(tmp_path), "cohort", "copy")
    storage.upload(uris[0], copy)
    with pytest.raises(InputError, match=r"8 of 8 are not\n(.|\n)*the same content as .*annotated otherwise"):
        make_cohort(CohortSettings(cohorts=[uris[0], copy], prefix={copy: "B "}), str(tmp_path))
    slow = made_from(folder_of(tmp_path / "slow", at="slow"), tmp_path, frame_rate_hz=20)
    with pytest.raises(InputError, match=r"expected one frame rate, found 30 Hz in .*, 20 Hz in "):
        make_cohort(CohortSettings(cohorts=[uris[0], slow.uri]), str(tmp_path))
    folder = folder_of(tmp_path / "other", at="other")
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace("walking_speed", "score").replace(",1", ",v1"))
    with pytest.raises(
        InputError, match=r"column 'score': expected number as in the cohorts before, found text"
    ):
        make_cohort(CohortSettings(cohorts=[uris[1], made_from(folder, tmp_path).uri]), str(tmp_path))
    table.write_text(table.read_text().replace("score", "diagnosis"))
    both = [made_from(folder, tmp_path).uri, simulated.uri]
    mixed = make_cohort(CohortSettings(cohorts=both), str(tmp_path))
    assert mixed.provenance == "synthetic and recorded"
    assert set(Cohort(mixed).table(["provenance"])["provenance"].to_pylist()) == {"synthetic", "recorded"}
    with pytest.raises(InputError, match="is not one of the cohorts"):
        settings.validate(CohortSettings, {"cohorts": uris, "prefix": {"elsewhere": "x"}}, "here")


ROW = "p0/a.mot,x,walk,1.1\n"
HEAD = "path,participant,activity,walking_speed\n"
BAD_TABLES = {
    "empty": ("", r"annotations.csv: expected a table .*found an empty file"),
    "no rows": (HEAD, r"annotations.csv: expected a row a recording, found none"),
    "no path": (
        "file,participant\np0/a.mot,x\n",
        r"line 1: expected a column 'path', found file, participant",
    ),
    "no participant": ("path,who\np0/a.mot,x\n", r"line 1: expected a column 'participant'"),
    "empty participant": (HEAD + "p0/a.mot,,walk,1\n", r"line 2: column 'participant' is empty"),
    "no such recording": (
        HEAD + ROW + "p9/a.mot,y,walk,1\n",
        r"line 3: participant 'y': expected a recording at 'p9/a.mot', found no such file",
    ),
    "outside": (HEAD + "../a.mot,y,walk,1\n", r"line 2: expected a path inside the folder, found '../a.mot'"),
    "duplicate": (HEAD + ROW + ROW.replace(",x,", ",y,"), r"line 3: 'p0/a.mot' has a row already, line 2"),
    "not a number": (HEAD + ROW.replace("1.1", "fast"), r"line 2, column 'walking_speed': .*found 'fast'"),
    "infinite": (HEAD + ROW.replace("1.1", "inf"), r"line 2, column 'walking_speed': .*found 'inf'"),
    "mixed": (
        "path,participant,score\np0/a.mot,x,3\np0/b.mot,x,high\n",
        r"column 'score': expected only text or only numbers, found 'high' in line 3 and '3' in line 2",
    ),
    "a short row": (HEAD + "p0/a.mot,x\n", r"line 2: expected 4 cells, found 2"),
    "reserved": (
        "path,participant,n_frames\np0/a.mot,x,90\n",
        r"column 'n_frames' is a name that a cohort itself",
    ),
    "a column twice": (
        "path,participant,path\np0/a.mot,x,p0/a.mot\n",
        r"line 1: column 'path' appears twice",
    ),
    "no name": ("path,participant,\np0/a.mot,x,1\n", r"line 1: column 3 has values but no name"),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("recorded"), participants=1)


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused_by_line_and_column(case, recorded):
    text, message = BAD_TABLES[case]
    (recorded / "annotations.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_folder(str(recorded))


@pytest.mark.parametrize("content", [(HEAD + ROW).encode("utf-16"), (HEAD + ROW).replace(",", "\t").encode()])
def test_a_table_in_another_encoding_or_with_tabs_is_read(content):
    expected = AnnotationTable.parse("a.csv", (HEAD + ROW).encode())
    found = AnnotationTable.parse("a.csv", content)
    assert expected.rows
    assert (found.rows, found.columns) == (expected.rows, expected.columns)


def test_what_spreadsheets_write(recorded):
    lines = [
        "\ufeffpath, participant ,activity,score,source,",
        "p0/a.mot,x,1,3,ward,",
        ",,,,,",
        "p0/b.mot,x,2,,,",
    ]
    (recorded / "annotations.csv").write_text("\r\n".join(lines), newline="")
    folder = open_folder(str(recorded))
    assert folder.columns == {"activity": "text", "score": "number"}
    assert [(r.line, r.source) for r in folder.rows] == [(2, "ward"), (4, None)]
    assert [r.annotations for r in folder.rows] == [
        {"activity": "1", "score": 3.0},
        {"activity": "2", "score": None},
    ]


def test_a_folder_that_is_no_folder_of_recordings(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder of recordings"):
        open_folder(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="found an empty folder"):
        open_folder(str(tmp_path))
    (tmp_path / "a.mot").write_text(mot(walk()))
    with pytest.raises(InputError, match=r"expected annotations.csv beside the recordings, found none"):
        open_folder(str(tmp_path))


@pytest.mark.parametrize("rate_hz", [60.0, 100.0, 500.0, 20.0])
def test_resampling_keeps_2_hz_and_drops_what_30_hz_cannot_hold(rate_hz):
    time = np.arange(round(4 * rate_hz)) / rate_hz
    angles = np.zeros((len(time), 34))
    angles[:, 0] = np.sin(2 * np.pi * 2 * time)
    if rate_hz > 60:
        angles[:, 1] = np.sin(2 * np.pi * 26 * time)  # would come back as 4 Hz
    heading = 3.0 * time  # turns past half a circle, where quaternions change sign
    pelvis = np.stack(
        [time, 0 * time, 0 * time, np.cos(heading / 2), 0 * time, np.sin(heading / 2), 0 * time], 1
    )
    pelvis[len(time) // 2 :, 3:] *= -1
    resampled, placed = resample(time, angles, pelvis, 30.0)
    at = np.arange(len(resampled)) / 30
    inner = slice(15, -15)
    assert len(resampled) == int(time[-1] * 30 + 1e-6) + 1
    np.testing.assert_allclose(resampled[inner, 0], np.sin(2 * np.pi * 2 * at)[inner], atol=0.03)
    assert np.abs(resampled[inner, 1]).max() < 0.02
    np.testing.assert_allclose(placed[inner, 0], at[inner], atol=1e-3)
    turned = 2 * np.arctan2(placed[:, 5], placed[:, 3])
    np.testing.assert_allclose(np.cos(turned - 3.0 * at)[inner], 1, atol=1e-4)


def test_resampling_times_that_are_uneven():
    rng = np.random.default_rng(0)
    time = np.sort(rng.choice(400, 300, replace=False)) / 100
    angles = np.repeat(np.sin(2 * np.pi * time)[:, None], 34, axis=1)
    pelvis = np.tile([0, 0, 0, 1.0, 0, 0, 0], (300, 1))
    resampled, _ = resample(time, angles, pelvis, 30.0)
    at = time[0] + np.arange(len(resampled)) / 30
    np.testing.assert_allclose(resampled[5:-5, 0], np.sin(2 * np.pi * at)[5:-5], atol=0.03)


LABELS = st.dictionaries(
    st.text(min_size=1, max_size=4),
    st.frozensets(st.sampled_from("abcdefg"), max_size=4),
    min_size=3,
    max_size=60,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(LABELS, st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 5))
def test_splits(labels, test, validation, seed):
    how = SplitSettings(test=test, validation=validation, seed=seed)
    split = assign(labels, how)
    assert split.keys() == labels.keys()
    assert split == assign(dict(reversed(labels.items())), how)
    count = {name: list(split.values()).count(name) for name in SPLITS}
    assert all(count.values())
    assert abs(count["test"] - test * len(labels)) <= 1
    assert abs(count["validation"] - validation * len(labels)) <= 1


@given(st.integers(3, 12), st.integers(20, 60), st.integers(0, 9))
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_rare_label_is_trained_on_and_tested(rare, others, seed):
    labels = {f"p{i}": frozenset(["rare"] if i < rare else ["common"]) for i in range(rare + others)}
    split = assign(labels, SplitSettings(test=0.15, validation=0.1, seed=seed))
    where = [split[f"p{i}"] for i in range(rare)]
    assert where.count("test") >= 1
    assert where.count("train") >= where.count("test")


def test_one_split_must_be_left_to_train_on():
    with pytest.raises(InputError, match="leave something to train on"):
        settings.validate(CohortSettings, {"splits": {"test": 0.6, "validation": 0.4}}, "here")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_packing_keeps_order_and_bounds(sizes, most):
    by_name = {f"p{i}": size for i, size in enumerate(sizes)}
    shards = pack_participants(by_name, most)
    assert [name for shard in shards for name in shard] == list(by_name)
    assert all(len(shard) == 1 or sum(by_name[n] for n in shard) <= most for shard in shards)
