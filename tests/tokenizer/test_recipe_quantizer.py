"""The recipe "a quantizer" of docs/extending.md, carried out with the page's own code in a copy of the package."""

import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from biomechgpt.core.settings import InputError, validate
from biomechgpt.tokenizer.settings import TokenizerSettings
from conftest import ROOT

UNION = re.compile(r"QuantizerSettings = Annotated\[.*?\n\]\n", re.DOTALL)
QUANTIZER = {"kind": "random", "codebook_size": 16}
USE = """
import torch
from biomechgpt.core.settings import validate
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.settings import TokenizerSettings

network = {"quantizer": {"kind": "random", "codebook_size": 16}, "code_dim": 8, "width": 8, "depth": 1}
settings = validate(TokenizerSettings, {"network": network, "window": 16}, "test")
model = MotionVQVAE(settings.network, settings.loss, seed=1)
angles = torch.randn(2, 16, N_JOINTS, generator=torch.Generator().manual_seed(0))
terms = model(angles, torch.ones(2, N_JOINTS))
sum(total / count for total, count in terms.values()).backward()
assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
tokenizer = MotionTokenizer(model, frame_rate_hz=30)
(tokens,) = tokenizer.encode([angles[0].numpy()])
assert tokens.shape == (4,) and set(tokens) <= set(range(16))
assert tokenizer.decode([tokens])[0].shape == (16, N_JOINTS)
saved = settings.network.model_dump(mode="json")
assert validate(type(settings.network), saved, "saved") == settings.network
"""


def recipe_code() -> list[str]:
    """The Python blocks of the recipe, in their order."""
    page = (ROOT / "docs" / "extending.md").read_text()
    section = page.split("\n## A quantizer\n")[1].split("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL)]


def test_a_quantizer_is_one_settings_class_and_one_class(tmp_path):
    """In a copy of the package nothing but two files changes, and the new quantizer trains and encodes."""
    with pytest.raises(InputError, match="kind"):
        validate(TokenizerSettings, {"network": {"quantizer": QUANTIZER}}, "before the recipe")
    package = tmp_path / "platform" / "biomechgpt"
    shutil.copytree(ROOT / "platform" / "biomechgpt", package, ignore=shutil.ignore_patterns("__pycache__"))
    settings_class, union, quantizer_class, entry = recipe_code()
    settings = package / "tokenizer" / "settings.py"
    text = settings.read_text()
    assert len(UNION.findall(text)) == 1
    settings.write_text(UNION.sub(lambda _: f"{settings_class}\n\n{union}", text))
    quantizers = package / "tokenizer" / "quantizers.py"
    quantizers.write_text(f"{quantizers.read_text()}\n\n{quantizer_class}\n\n{entry}")
    result = subprocess.run(
        [sys.executable, "-c", USE],
        env={"PYTHONPATH": str(package.parent), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
