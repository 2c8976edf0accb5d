"""The data card: what it counts is what the cohort holds, however its shards are cut; its page is whole."""

import json
import re
import xml.dom.minidom
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from biomechgpt import simulator
from biomechgpt.cohort import Cohort, CohortSettings, data_card, make_cohort
from biomechgpt.cohort.shards import Quarantined
from biomechgpt.core import settings, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.show import ShowSettings, run_show
from biomechgpt.motion import norms, plots
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.motion.trial import from_row
from opensim_files import mot, walk

RATE = 30.0
ROOT = Path(__file__).parents[2]
SOME = settings.load(CohortSettings, ROOT / "configs" / "cohort" / "tiny.yaml").simulator


@pytest.fixture(scope="module")
def trials():
    made = [t for person in simulator.participants(SOME) for t in simulator.trials(SOME, person, RATE)]
    names = sorted({t.participant for t in made})
    for t in made:
        t.split = {0: "test", 1: "validation"}.get(names.index(t.participant), "train")
    return made


def summary(total):
    return data_card.summarize(total, simulator.COLUMNS, [], "synthetic", RATE)


def test_shards_add_up_to_the_whole(trials):
    # In the order of the shards, because shortcuts are looked for in the order of the files.
    trials = sorted(trials, key=lambda t: t.participant)
    people = sorted({t.participant for t in trials})
    whole = data_card.tally(trials, simulator.COLUMNS)
    total = data_card.Tally()
    for some in (people[:1], people[1:9], people[9:]):
        total.add(data_card.tally([t for t in trials if t.participant in some], simulator.COLUMNS))
    assert summary(total) == summary(whole)
    assert total.walking.keys() == whole.walking.keys()
    for group, cycles in total.walking.items():
        np.testing.assert_allclose(cycles.total, whole.walking[group].total)


def test_what_is_counted_is_what_is_there(trials):
    found = summary(data_card.tally(trials, simulator.COLUMNS))
    assert found["participants"] == len({t.participant for t in trials}) > 20
    assert found["hours"] == pytest.approx(sum(t.duration_s for t in trials) / 3600, abs=1e-4)
    for name, column in found["annotations"].items():
        for split in ("train", "validation", "test"):
            here = [t for t in trials if t.split == split and t.annotations.get(name) is not None]
            expected = {"participants": len({t.participant for t in here}), "samples": len(here)}
            assert column[split] == expected, (name, split)
        known = [t.annotations.get(name) for t in trials if t.annotations.get(name) is not None]
        if column["kind"] == "text":
            assert {value: n["samples"] for value, n in column["classes"].items()} == {
                value: known.count(value) for value in set(known)
            }
        else:
            median = np.quantile(known, 0.5, method="inverted_cdf")
            assert column["quantiles"]["0.5"] == pytest.approx(median, rel=0.005)
        assert found["missing"]["annotations"][name] == len(trials) - len(known)
    assert not {"age", "sex", "site"} & found["annotations"].keys()
    knee = np.degrees(np.concatenate([t.angles_rad[:, INDEX["knee_angle_l"]] for t in trials]))
    for q in ("0.05", "0.5", "0.95"):
        assert found["joints"]["knee_angle_l"]["quantiles"][q] == pytest.approx(
            np.quantile(knee, float(q)), abs=1.6
        )
    # Hips are 8 degrees less flexed than in the norm, whose pelvis is tilted more (simulator.movement).
    off = found["walking"]["off_norm_sd"]["unimpaired"]
    assert max(value for name, value in off.items() if not name.startswith("hip_flexion")) < 2
    assert off["hip_flexion_r"] < 3


def test_joints_that_were_not_recorded_are_missing_and_odd_ones_are_outside(trials):
    odd = from_row(trials[0].row())
    odd.joint_mask = np.array([name != "arm_flex_r" for name in NAMES])
    odd.angles_rad[:, INDEX["elbow_flex_l"]] = np.radians(200)
    found = summary(data_card.tally([odd], simulator.COLUMNS))
    assert found["missing"]["joints"] == {"arm_flex_r": 1}
    assert "arm_flex_r" not in found["joints"]
    assert found["joints"]["elbow_flex_l"]["outside"] == 1
    assert found["joints"]["elbow_flex_r"]["outside"] == 0


def test_reasons_are_grouped_by_what_is_wrong_not_by_where():
    items = [
        {"path": "a.mot", "reason": "a.mot: line 7: expected 38 values, found 12: the file is cut off"},
        {"path": "b/c.mot", "reason": "b/c.mot: line 90: expected 24 values, found 3: the file is cut off"},
        {"path": "d.mot", "reason": "no row in annotations.csv"},
        {"path": "e.mot", "reason": "e.mot: line 3, column 'knee_angle_r': expected a number, found 'x'"},
    ]
    groups = data_card.reasons(items)
    assert [[item["path"] for item in group] for group in groups.values()] == [
        ["a.mot", "b/c.mot"],
        ["d.mot"],
        ["e.mot"],
    ]
    assert sum(map(len, groups.values())) == len(items)


def test_the_page_needs_nothing_else_and_hides_nothing(trials):
    total = data_card.tally(trials, simulator.COLUMNS)
    quarantined = [Quarantined(path="<b>.mot", reason="<b>.mot: expected a number, found '<script>'")]
    found = data_card.summarize(total, simulator.COLUMNS, quarantined, "synthetic", RATE)
    page = data_card.page(found, total)
    assert page == data_card.page(found, total)
    assert "<strong>Synthetic.</strong>" in page
    assert "Synthetic" not in data_card.page(data_card.summarize(total, {}, [], "recorded", RATE), total)
    assert "&lt;b&gt;.mot" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 4
    for picture in pictures:
        xml.dom.minidom.parseString(picture)
    for name in ("diagnosis", "walking speed", "stroke"):
        assert name in page


@pytest.mark.parametrize("verified", [True, False])
def test_a_norm_that_was_not_verified_says_so_wherever_it_is_drawn(trials, monkeypatch, verified):
    """On the card's page, which names the source, and on every picture with a band."""
    monkeypatch.setattr(norms, "CURVES", replace(norms.CURVES, verified=verified))
    total = data_card.tally(trials[:10], simulator.COLUMNS)
    page = data_card.page(summary(total), total)
    assert norms.CURVES.citation in page
    assert (norms.UNVERIFIED in page) == (not verified)
    _, axes = plt.subplots()
    plots.band(axes, "knee_angle_r")
    plots.band(axes, "neck_rotation")  # no norm, no mark
    assert [text.get_text() for text in axes.texts] == ([] if verified else ["norm unverified"])
    plt.close()


def test_the_card_says_whether_a_shortcut_tells_a_label(trials):
    total = data_card.tally(trials, simulator.COLUMNS)
    found = summary(total)
    page = data_card.page(found, total)
    _, page = page.split("Does anything beside the movement tell a label?")
    assert found["shortcuts"]
    for label, scores in found["shortcuts"].items():
        cells = page.split(f"<td>{label.replace('_', ' ')}")[1].split("</tr>")[0]
        assert f"{scores['length']:.2f}" in cells


def test_an_empty_cohort_has_a_card():
    empty = data_card.Tally()
    found = data_card.summarize(empty, simulator.COLUMNS, [], "recorded", RATE)
    assert found["participants"] == found["hours"] == 0
    assert "Nothing was quarantined" in data_card.page(found, empty)


@pytest.mark.cluster
def test_a_cohort_has_its_card(ray_cluster, tmp_path):
    cohort = make_cohort(CohortSettings(simulator=SOME, shard_trials=20), str(tmp_path))
    assert len(storage.list_files(cohort.path("trials"))) > 3
    found = cohort.read_json(data_card.JSON)
    rows = Cohort(cohort).table().to_pylist()
    names = {row["participant"]: row["split"] for row in rows}
    columns = Cohort(cohort).info.annotations
    assert found == json.loads(json.dumps(summary(data_card.tally(map(from_row, rows), columns))))
    assert found["participants"] == len(names)
    of_cohort = show(target=cohort.uri, trial=rows[5]["trial"], output=str(tmp_path / "trial.png"))
    assert Path(of_cohort).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="expected a trial 'nobody', found none of that name"):
        show(target=cohort.uri, trial="nobody")
    with pytest.raises(InputError, match="expected --trial NAME"):
        show(target=cohort.uri)
    assert found["annotations"]["activity"]["test"]["participants"] == list(names.values()).count("test")
    assert storage.read_bytes(cohort.path(data_card.HTML)).startswith(b"<!doctype html>")


def show(**arguments):
    """What `biomechgpt show` does with these settings."""
    return run_show(settings.validate(ShowSettings, arguments, "here"))


def test_a_file_is_drawn_by_the_job(tmp_path):
    file = tmp_path / "walk.mot"
    file.write_text(mot(walk()))
    picture = show(target=str(file), output=str(tmp_path / "out" / "walk.png"))
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="somewhere"):
        show(target="somewhere")


@pytest.mark.parametrize("walks", [True, False])
def test_a_trial_is_drawn(trials, walks):
    t = next(t for t in trials if ("walking" in t.annotations["activity"]) == walks)
    picture = plots.png(
        plots.trial_figure(t.angles_rad, t.pelvis, RATE, title="a", how="b", joint_mask=t.joint_mask)
    )
    assert picture.startswith(b"\x89PNG")
