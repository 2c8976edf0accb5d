"""The codebook page: codes occur at the places that it shows, shares add up, and gaps in a recording stay gaps."""

import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.core import artifact, storage
from biomechgpt.evaluation import codebook
from biomechgpt.motion import trial
from biomechgpt.motion.skeleton import N_JOINTS, NAMES
from biomechgpt.motion.trial import Trial
from biomechgpt.tokenizer.layout import TokenLayout

FEW = hypothesis_settings(max_examples=40, deadline=None)
CODES = 8
sequence = st.lists(st.integers(0, CODES - 1), max_size=30).map(lambda codes: np.array(codes, int))
sequences = st.lists(sequence, min_size=1, max_size=6).filter(lambda drawn: any(len(s) for s in drawn))


@FEW
@given(sequences, st.integers(1, 12))
def test_each_place_has_its_code_and_all_places_are_returned_up_to_the_limit(tokens, max_places):
    for code, places in codebook.places(tokens, range(CODES), max_places).items():
        assert all(tokens[row][position] == code for row, position in places)
        occurrences = sum(int((sequence == code).sum()) for sequence in tokens)
        assert len(set(places)) == len(places) == min(occurrences, max_places)


@FEW
@given(sequences, st.randoms())
def test_shares_of_a_code_over_an_annotations_values_add_up_to_one(tokens, random):
    labels = [random.choice(["sitting", "TUG", None]) for _ in tokens]
    by_value = codebook.lift(tokens, labels, CODES)
    annotated = [t for t, label in zip(tokens, labels, strict=True) if label]
    occurs = np.bincount(np.concatenate([np.empty(0, int), *annotated]).astype(int), minlength=CODES) > 0
    if occurs.any():
        assert sum(share[occurs] for share, _ in by_value.values()) == pytest.approx(1)
        assert sum(share_of_all for _, share_of_all in by_value.values()) == pytest.approx(1)
    for value in by_value:
        codes = np.concatenate([t for t, label in zip(tokens, labels, strict=True) if label == value])
        assert set(np.flatnonzero(np.nan_to_num(by_value[value][0]))) == set(codes)


def test_a_code_that_occurs_equally_often_with_every_value_has_a_lift_of_one():
    tokens = [np.array([0, 0, 1]), np.array([0, 0, 2, 0, 0, 2]), np.array([3])]
    by_value = codebook.lift(tokens, ["a", "b", None], CODES)
    lifts = {value: share[:3] / share_of_all for value, (share, share_of_all) in by_value.items()}
    assert lifts["a"] == pytest.approx([1, 3, 0])
    assert lifts["b"] == pytest.approx([1, 0, 1.5])


def test_a_code_is_typical_of_the_value_with_its_largest_lift():
    rng = np.random.default_rng(0)
    labels = ["a", "b", "c"] * 20
    tokens = [rng.choice(60, 200, p=np.roll(np.linspace(2, 0, 60) / 60, 20 * "abc".index(x))) for x in labels]
    count, by_value = np.bincount(np.concatenate(tokens), minlength=60), codebook.lift(tokens, labels, 60)
    chosen = codebook.pick(count, by_value)
    assert [code for code, why in chosen.items() if why == "frequent"] == np.argsort(-count, kind="stable")[
        : codebook._FREQUENT
    ].tolist()
    lifts = {value: share / share_of_all for value, (share, share_of_all) in by_value.items()}
    for value in by_value:
        typical = [code for code, why in chosen.items() if why == f"typical of {value}"]
        assert len(typical) == codebook._TYPICAL
        for code in typical:
            assert max(lifts, key=lambda name: lifts[name][code]) == value


@FEW
@given(st.integers(1, 40), st.integers(0, 39), st.integers(1, 8), st.integers(0, 12))
def test_the_frames_around_a_token_are_the_movements_and_nan_beyond_its_ends(frames, first, length, context):
    angles = np.arange(frames)[:, None] + np.zeros((1, N_JOINTS))
    cut = codebook.around(angles, first, length, context)
    expected = np.arange(first - context, first + length + context)
    assert cut.shape == (length + 2 * context, N_JOINTS)
    inside = (expected >= 0) & (expected < frames)
    assert (cut[inside, 0] == expected[inside]).all()
    assert np.isnan(cut[~inside]).all()


@FEW
@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["TUG", "FGA", None])), min_size=1, max_size=20))
def test_the_best_the_worst_and_one_of_each_kind_are_shown(rows):
    errors, kinds = zip(*rows, strict=True)
    chosen = codebook.choose(errors, kinds)
    error_of = {reason: errors[i] for i, reasons in chosen.items() for reason in reasons}
    assert error_of["best"] == min(errors)
    assert error_of["worst"] == max(errors)
    for kind in {kind for kind in kinds if kind}:
        of_kind = sorted(error for error, name in rows if name == kind)
        assert error_of[f"median of {kind}"] == of_kind[len(of_kind) // 2]


@pytest.fixture
def tokens(tmp_path, monkeypatch):
    """Tokens of a few trials without arm joints, with their cohort and a tokenizer whose reconstructions are two
    degrees off in every joint."""
    rng = np.random.default_rng(0)
    recorded = np.array([not name.startswith(("arm", "elbow")) for name in NAMES])
    trials, codes = [], []
    for i, n in enumerate((40, 61, 24, 9, 80, 33)):
        angles = (rng.normal(size=(n, N_JOINTS)) / 3).astype(np.float32)
        kind = [None, "<b>TUG</b>", "sitting"][i % 3]
        trials.append(
            Trial(f"t{i}", f"p{i // 2}", angles, np.zeros((n, 7), np.float32), 30.0, joint_mask=recorded,
                  split="test" if i > 2 else "train", annotations={"activity": kind})
        )  # fmt: skip
        codes.append(np.concatenate([[i % CODES], rng.integers(CODES, size=-(-n // 4) - 1)]))
    artifacts = {
        name: artifact.Artifact(
            str(tmp_path / name / name), {"kind": name, "fingerprint": name, "provenance": "recorded"}
        )
        for name in ("cohort", "tokenizer", "tokens")
    }
    artifacts["tokenizer"].manifest["metrics"] = {"perplexity": 7.0, "rmse_deg_tracked": 2.0}
    artifacts["tokens"].manifest["inputs"] = {
        name: {"kind": name, "fingerprint": name} for name in ("cohort", "tokenizer")
    }
    for stored in artifacts.values():
        storage.write_json(stored.path("manifest.json"), stored.manifest)
    columns = {"activity": "text"}
    for name, table in (
        ("cohort/cohort/trials", trial.table(trials, columns)),
        ("tokens/tokens/tokens", trial.table(trials, {}).append_column("tokens", pa.array(codes))),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "part.parquet")
    storage.write_json(
        artifacts["tokens"].path("tokens.json"),
        {"tokenizer": "tokenizer", "codebook_size": CODES, "tokens_per_step": 1, "tokens_per_s": 7.5},
    )
    storage.write_json(
        artifacts["cohort"].path("cohort.json"),
        {
            "annotations": columns,
            "frame_rate_hz": 30.0,
            "participants": {},
            "trials": 6,
            "hours": 0,
            "quarantined": [],
        },
    )
    decoded = {tuple(c): t.angles_rad + np.radians(2) for c, t in zip(codes, trials, strict=True)}
    fake = SimpleNamespace(
        downsampling=4,
        frame_rate_hz=30.0,
        decode=lambda tokens: [decoded[tuple(t)] for t in tokens],
        layout=TokenLayout(0, 0, (CODES,)),
        n_posture=0,
    )
    monkeypatch.setattr(codebook, "MotionTokenizer", SimpleNamespace(load=lambda uri: fake))
    return artifacts["tokens"]


def test_the_page_shows_recorded_joints_escapes_annotations_and_is_self_contained(tokens, tmp_path):
    page = storage.read_bytes(codebook.write_codebook(tokens, str(tmp_path / "out"))).decode()
    assert not re.search(r"\b(nan|None|Undefined|inf)\b", page)
    assert "src=" not in page
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert "&lt;b&gt;TUG" in page
    assert "<b>TUG" not in page
    assert page.count('class="card code"') == CODES
    links = set(re.findall(r'href="#([^"]*)"', page))
    assert {"use", "codes", "reconstruction", "provenance"} <= links <= set(re.findall(r'id="([^"]*)"', page))
    assert page.count('type="radio" name="codes"') > 1  # filters
    assert page.count('type="radio" name="joints"') == 6
    for svg in re.findall(r"<svg[^>]*class=[^>]*>", page):
        assert "aria-label=" in svg
    # Three held-out trials. Every recorded joint is two degrees off. Joints that were not recorded have no curve.
    joints = re.findall(r"<span>([a-z ]+)</span> ?<b>([\d.]+)°</b>", page)
    assert {error for _, error in joints} == {"2.0"}
    assert {"hip flexion r", "neck rotation"} < {name for name, _ in joints}
    assert not [name for name, _ in joints if name.startswith(("arm", "elbow", "mtp"))]
