"""Movements that are made: what may be drawn, how they are judged, and what their files say."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from biomechgpt.answering.generate import _Grammar
from biomechgpt.cohort import Cohort, CohortSettings, make_cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation.generation import (
    HOP,
    NOTE,
    WINDOW,
    GenerateSettings,
    diversity,
    features,
    frechet,
    make_generated,
)
from biomechgpt.tokenizer.layout import TokenLayout
from biomechgpt.tokenizer.tokens import Tokens


@pytest.mark.parametrize("sizes", [[7], [3, 4], [2, 3, 5]])
@pytest.mark.parametrize("stacked", [False, True])
def test_only_what_a_movement_can_go_on_with_is_drawn(sizes, stacked):
    first, end, n_posture = 10, 5, 2
    layout = TokenLayout(n_posture, 6, tuple(sizes))
    edges = first + np.cumsum([0, *sizes, 6])
    *places, posture = (list(range(*edge)) for edge in pairwise(edges.tolist()))
    grammar = _Grammar(first, layout, n_posture, end, stacked)
    endless = _Grammar(first, layout, n_posture, None, stacked)
    for done in range(n_posture):
        assert grammar.allowed(done) == endless.allowed(done) == [posture]
    per_position = len(sizes) if stacked else 1
    for n_motion in range(0, 24, per_position):
        place = n_motion % len(sizes)
        expected = places if stacked else [places[place]]
        done = n_posture + n_motion // per_position
        assert endless.allowed(done) == expected
        may_end = place == 0 and n_motion >= 8
        assert grammar.allowed(done) == [[*expected[0], *([end] if may_end else [])], *expected[1:]]


def test_the_frechet_distance_is_that_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(20_000, 3))
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    # |m - m'|^2 + sum of (s - s')^2 where they are independent.
    assert frechet(one, 2 * one + [3, 0, 4]) == pytest.approx(25 + 3, rel=0.03)
    assert frechet(one[:1], one) is None
    assert diversity(2 * one, rng) == pytest.approx(2 * diversity(one, rng), rel=0.1)
    assert diversity(one[:1], rng) is None


def test_features_tell_movements_apart_by_codes_and_by_their_order(tiny):
    from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

    tokenizer = MotionTokenizer.load(tiny.made("tokenizer").uri)
    one = np.arange(3 * WINDOW) % 5
    found = features(tokenizer, [one, np.sort(one), one[: WINDOW - 1]])
    assert found.shape == (2 * ((3 * WINDOW - WINDOW) // HOP + 1), 3 * tokenizer.codebook.shape[1])
    half = len(found) // 2
    codes = tokenizer.codebook[one[:WINDOW]]
    np.testing.assert_allclose(found[0][: codes.shape[1]], codes.mean(axis=0), rtol=1e-5)
    assert not np.allclose(found[0], found[half])
    assert features(tokenizer, []).shape == (0, 3 * codes.shape[1])


@pytest.fixture(scope="module")
def made(tiny):
    """{mode: the generated artifact of the tiny run's model}."""
    model = tiny.made("model")
    each = {
        mode: GenerateSettings(mode=mode, max_movements=6, max_duration_s=4)
        for mode in ("describe", "continue")
    }
    return {mode: make_generated(model, settings, str(tiny.root)) for mode, settings in each.items()}


@pytest.mark.cluster
def test_a_movement_is_made_of_each_description_and_differs_with_the_seed(tiny, made):
    table = pd.read_parquet(made["describe"].path("generated.parquet"))
    model = tiny.made("model")
    info = Tokens(model.input("tokens")).info
    n, codes = info.n_posture, info.codebook_size
    assert len(table) == made["describe"].metrics["movements"] > 0
    assert table["question"].str.len().gt(5).all()
    assert n == 26  # the tracked joints
    for tokens in table["tokens"]:
        assert n + 8 <= len(tokens) <= n + 30
        assert set(tokens[:n]) <= set(range(64, codes))
        assert set(tokens[n:]) <= set(range(64))
    other = make_generated(model, GenerateSettings(max_movements=6, max_duration_s=4, seed=1), str(tiny.root))
    again = pd.read_parquet(other.path("generated.parquet"))
    assert [list(t) for t in again["tokens"]] != [list(t) for t in table["tokens"]]
    own = GenerateSettings(descriptions=["a walk with a cane"], max_duration_s=4)
    (one,) = pd.read_parquet(make_generated(model, own, str(tiny.root)).path("generated.parquet"))["question"]
    assert "a walk with a cane" in one


@pytest.mark.cluster
def test_a_movement_that_goes_on_begins_as_it_did(tiny, made):
    table = pd.read_parquet(made["continue"].path("generated.parquet")).set_index("trial")
    real = Tokens(tiny.made("tokens")).codes()
    for trial, row in table.iterrows():
        n = row["recorded_tokens"]
        assert 26 < n < len(row["tokens"]) <= len(real[trial])
        assert list(row["tokens"][:n]) == list(real[trial][:n])


@pytest.mark.cluster
def test_quality_is_told_beside_held_out_movements(made):
    for one in made.values():
        quality = json.loads(storage.read_bytes(one.path("quality.json")))
        assert quality["data"] == "synthetic"
        assert quality["note"] == NOTE
        assert 0 <= quality["in_range"] <= 1
        assert 0 <= quality["too_fast"] <= 1
        assert quality["jerk_ratio"] > 0
        assert quality["frechet_shuffled"] > 0
        assert set(quality["agreement"]) == set(quality["agreement_held_out"]) <= {
            "activity", "impaired", "diagnosis", "assistive_device", "falls_history"
        }  # fmt: skip


@pytest.mark.cluster
def test_a_generated_file_says_so_and_is_read_back_as_synthetic(made, tmp_path):
    folder = made["describe"].path("movements")
    files = [name for name in storage.list_files(folder) if name.endswith(".mot")]
    assert len(files) == made["describe"].metrics["movements"]
    assert all(NOTE in storage.read_bytes(storage.join(folder, name)).decode() for name in files)
    # The tiny model has learned next to nothing: its movements have any angle.
    settings = CohortSettings(recordings=folder, quality={"range_margin_deg": 180})
    cohort = make_cohort(settings, str(tmp_path))
    assert cohort.provenance == "synthetic"
    table = Cohort(cohort).table()
    assert set(table["source"].to_pylist()) == {
        f"generated by model {made['describe'].input('model').fingerprint}"
    }


@pytest.mark.cluster
def test_a_model_without_the_task_makes_no_movements(tiny, tmp_path):
    model = tiny.made("model")
    tasks = [t for t in storage.read_json(model.path("tasks.json")) if t["kind"] != "generation"]
    folder = tmp_path / "model" / model.fingerprint
    storage.upload(artifact.local_copy(model.uri), str(folder))
    storage.write_json(str(folder / "tasks.json"), tasks)
    checksums = model.manifest["files"] | {"tasks.json": storage.sha256(str(folder / "tasks.json"))}
    storage.write_json(str(folder / artifact.MANIFEST), model.manifest | {"files": checksums})
    with pytest.raises(InputError, match="expected a task of kind generation"):
        make_generated(artifact.load(str(folder)), GenerateSettings(), str(tmp_path))
