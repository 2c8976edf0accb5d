"""Layers of a language model as compiled code: torch.compile fuses their small operations.

On a CPU, norms, rotations, activations and the sums of adapters take as long as the products; each operation reads
and writes all states. Knows tensors only.
"""

import logging
import os
import shutil
from importlib.util import find_spec
from typing import Any

logger = logging.getLogger("biomechgpt")


def has_compiler(device_type: str) -> bool:
    """Whether torch.compile can make code for this type of device here: Triton for a GPU, g++ or CXX for a CPU."""
    if device_type == "cuda":
        return find_spec("triton") is not None
    return shutil.which(os.environ.get("CXX") or "g++") is not None


def compile_layers(model: Any, device_type: str) -> bool:
    """Compile each layer of a model's decoder when it is first called; return whether a compiler is there.

    The layers differ in their weights alone, so they share the compiled code. Its shapes are free: batches differ.
    """
    if not has_compiler(device_type):
        logger.warning("compile_layers: no compiler found (g++, or Triton for a GPU): steps are slower")
        return False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for layer in base.get_decoder().layers:
        layer.compile(dynamic=True)
    return True
