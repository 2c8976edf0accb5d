"""Fixtures of tests with tiny language models, a plugin of pytest. Each loads torch only where it is asked for."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread, so that sums have one order, and quiet libraries."""
    import torch

    from biomechgpt.language import network

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    network.quiet()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def codebook():
    """Codes of very unlike distances, (CODES, 24)."""
    import tiny_language

    return tiny_language.codebook_of_groups()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, codebook):
    """Artifacts of 12 trials: (root, {questions, tokens, tokenizer})."""
    import tiny_language

    root = tmp_path_factory.mktemp("artifacts")
    return root, tiny_language.artifacts_of(codebook, root)


@pytest.fixture(scope="module", params=["text", "image"])
def base(request, one_thread, artifacts, tmp_path_factory):
    """(a form of Gemma 3, the base artifact of a checkpoint in that form)."""
    import tiny_language

    tokenizer = tiny_language.text_tokenizer()
    model = tiny_language.FORMS[request.param][0](tokenizer)
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, tiny_language.base_of(model, tokenizer, folder, artifacts)


@pytest.fixture(scope="module")
def bundle(base, artifacts):
    """(the trained model, the model artifact)."""
    import tiny_language

    model = tiny_language.model_of(base[1], artifacts, tiny_language.settings_of())
    return tiny_language.LAST["model"], model
