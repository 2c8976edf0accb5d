"""Settings of the language step: the paper's, and what each way of giving them means."""

import json

import pytest

from biomechgpt.core.settings import InputError, load, override, validate
from biomechgpt.experiment.settings import LanguageSettings
from biomechgpt.language.pretrain import check
from biomechgpt.language.settings import BaseSettings, FinetuneSettings
from conftest import ROOT

CONFIGS = ROOT / "configs"


def language(file, arguments=()):
    return load(LanguageSettings, file, arguments)


def write(folder, **settings):
    (folder / "settings.yaml").write_text(json.dumps(settings))
    return folder / "settings.yaml"


@pytest.mark.parametrize(
    ("name", "base", "batch", "rank", "dropout"),
    [
        ("paper_1b", "google/gemma-3-1b-it", 6, 32, 0.1),
        ("paper_1b_rank16", "google/gemma-3-1b-it", 6, 16, 0.005),
        ("paper_4b", "google/gemma-3-4b-it", 10, 32, 0.1),
    ],
)
def test_the_papers_settings_are_the_papers(name, base, batch, rank, dropout):
    made = language(CONFIGS / "language" / f"{name}.yaml")
    assert (made.base.name, made.base.embedding_init, made.base.motion.epochs) == (base, "random", 0)
    tuned = made.finetune
    assert tuned.adapter.model_dump() == {"rank": rank, "alpha": rank, "dropout": dropout}
    assert (tuned.samples, tuned.batch_size, tuned.max_length) == ("pairs", batch, 1024)
    assert (tuned.epochs, tuned.loss_weights, tuned.training.learning_rate) == (1.2, (1, 1, 1), 2e-4)
    assert (tuned.quantization, tuned.compute_dtype) == ("nf4", "bf16")


def test_the_small_gemmas_fine_tuning_is_the_papers_in_trees():
    small = language(CONFIGS / "language/gemma_270m.yaml").finetune
    paper = language(CONFIGS / "language/paper_1b.yaml").finetune
    same = ("adapter", "quantization", "compute_dtype", "loss_weights", "epochs", "max_length")
    assert all(getattr(small, name) == getattr(paper, name) for name in same)
    assert small.training.learning_rate == paper.training.learning_rate


@pytest.mark.parametrize("name", ["paper_1b", "paper_4b", "gemma_270m"])
def test_a_named_gemma_gets_no_motion_pretraining_unless_asked(name, tmp_path):
    assert language(CONFIGS / "language" / f"{name}.yaml").base.motion.epochs == 0
    assert language(write(tmp_path, base={"name": "x", "motion": {"epochs": 2}})).base.motion.epochs == 2
    assert BaseSettings().motion.epochs > 0


@pytest.mark.parametrize("option", ["--base.name=x", "--base.seed=1", "--base.motion.questions=4"])
def test_nor_when_an_option_is_given(option):
    assert language(CONFIGS / "language" / "paper_1b.yaml", [option]).base.motion.epochs == 0


def test_a_file_means_the_same_with_an_option_beside_it(tmp_path):
    file = write(tmp_path, base={"motion": {"training": {"seed": 1}}})
    assert language(file, ["--base.seed", "0"]) == language(file)


def test_nor_when_a_variant_of_an_experiment_names_it():
    assert override(LanguageSettings(), {"base.name": "x"}, "variant").base.motion.epochs == 0


def test_a_part_that_is_given_leaves_the_rest_as_it_was():
    given = BaseSettings(motion={"training": {"seed": 1}}).motion.training
    assert given.model_copy(update={"seed": 0}) == BaseSettings().motion.training


def test_a_base_that_is_not_on_the_machine_is_refused_with_what_to_do():
    with pytest.raises(InputError, match=r"no weights of 'nobody/nothing'.*hf download nobody/nothing"):
        check(BaseSettings(name="nobody/nothing"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adapter": None}, "4-bit weights cannot be trained"),
        ({"training": {"zero_stage": 3}}, "packed in blocks"),
    ],
)
def test_what_four_bits_cannot_do_is_refused_with_the_reason(wrong, said):
    with pytest.raises(InputError, match=said):
        validate(FinetuneSettings, wrong, "test")
    validate(FinetuneSettings, {**wrong, "quantization": "none"}, "test")
