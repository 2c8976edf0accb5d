"""Our codebook against vector-quantize-pytorch's VectorQuantize: speed, error, use of the codes, and whether two
workers at half the batch learn what one learns.

Both have the same size, decay and threshold of resets, and see the same vectors: of unequal clusters, a quarter of
the steps padding. CPU, one thread; medians.

python benchmarks/speed/quantizers.py [--codes 512] [--dim 128] [--steps 200]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, multiprocessing, nn
from vector_quantize_pytorch import VectorQuantize

from biomechgpt.tokenizer.network import perplexity
from biomechgpt.tokenizer.quantizers import EMAQuantizer
from biomechgpt.tokenizer.settings import EMASettings

SAMPLES, LENGTH = 64, 16


class Theirs(nn.Module):
    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.inner = VectorQuantize(dim, codes, decay=0.99, kmeans_init=True, threshold_ema_dead_code=1)

    def forward(self, z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        quantized, codes, _ = self.inner(z.transpose(1, 2), mask=mask[:, 0] > 0)
        return quantized.transpose(1, 2), codes

    def codebook(self) -> Tensor:
        return self.inner.codebook


class Ours(nn.Module):
    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.inner = EMAQuantizer(EMASettings(codebook_size=codes), dim, 0)

    def forward(self, z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        quantized, codes, _ = self.inner(z, mask)
        return quantized, codes[..., 0]

    def codebook(self) -> Tensor:
        return self.inner.codebook


def batches(codes: int, dim: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """z (64, dim, 16) and mask (64, 1, 16), the same at every call."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(codes, dim, generator=generator)
    share = 1 / torch.arange(1, codes + 1)
    for _ in range(steps):
        drawn = torch.multinomial(share, SAMPLES * LENGTH, replacement=True, generator=generator)
        z = centres[drawn] + 0.3 * torch.randn(SAMPLES * LENGTH, dim, generator=generator)
        mask = (torch.rand(SAMPLES, 1, LENGTH, generator=generator) < 0.75).float()
        yield z.view(SAMPLES, LENGTH, dim).transpose(1, 2), mask


def learn(
    made: type[Ours | Theirs], codes: int, dim: int, steps: int, rank: int, world: int
) -> dict[str, object]:
    torch.manual_seed(rank)
    torch.set_num_threads(1)
    quantizer = made(codes, dim).train()
    seconds = []
    for z, mask in batches(codes, dim, steps):
        started = time.perf_counter()
        quantizer(z[rank::world], mask[rank::world])
        seconds.append(time.perf_counter() - started)
    quantizer.eval()
    error, used = [], []
    for z, mask in batches(codes, dim, 20):
        quantized, found = quantizer(z, mask)
        error.append(float((((z - quantized) ** 2) * mask).sum() / mask.sum() / dim))
        used.append(found[mask[:, 0] > 0])
    return {
        "step_ms": round(1e3 * statistics.median(seconds), 3),
        "squared_error": round(statistics.mean(error), 4),
        "perplexity": round(perplexity(torch.cat(used), codes), 1),
        "codebook": quantizer.codebook().detach(),
    }


def half(rank: int, folder: str, codes: int, dim: int, steps: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for made in (Ours, Theirs):
        torch.save(learn(made, codes, dim, steps, rank, 2)["codebook"], f"{folder}/{made.__name__}{rank}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("codes", 512), ("dim", 128), ("steps", 200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    sizes = (options.codes, options.dim, options.steps)
    found = {made.__name__.lower(): learn(made, *sizes, 0, 1) for made in (Ours, Theirs)}
    few = (options.codes, options.dim, 20)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(half, (folder, *few), nprocs=2)
        for made in (Ours, Theirs):
            one = learn(made, *few, 0, 1)["codebook"]
            two = torch.load(f"{folder}/{made.__name__}0", weights_only=True)
            found[made.__name__.lower()]["largest_difference_of_2_workers"] = float((one - two).abs().max())
    for values in found.values():
        values.pop("codebook")
    speed = found["theirs"]["step_ms"] / found["ours"]["step_ms"]
    print(json.dumps({**found, "step_ratio_vs_vector_quantize_pytorch": round(speed, 2)}))


if __name__ == "__main__":
    main()
