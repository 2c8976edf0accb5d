"""The tokenizer's speed: a training step against T2M-GPT's, tokenizing a cohort against the bare encoder.

python benchmarks/speed/tokenizer.py [--rounds 20] [--most 64] [--pairs 3]
    [--chart docs/results/tokenizer_speed.png]

Training: the network of configs/tokenizer/demo.yaml on batches of its windows, a whole step with optimizer,
against the same network as T2M-GPT writes it, in turns. On a GPU the network is that of paper.yaml.

Tokenizing: `make_tokens` on cohorts of 64 trials, twice, ... `--most` times as many. A line is fitted to the
times: its slope is compared with the network's forward on batches that lie ready, on as many cores, and with
one trial at a time; where it meets zero trials is what starting costs. The last line is JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from torch import Tensor, nn
from torch.nn import functional

from biomechgpt.cohort import CohortInfo
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import load, override
from biomechgpt.motion import trial
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.settings import TokenizerSettings, TokensSettings
from biomechgpt.tokenizer.tokens import make_tokens
from biomechgpt.tokenizer.train import make_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs/tokenizer"
TRIALS = 64
"""Of the smallest cohort; the others are so many times as large."""
SHARD = 256
"""Trials of a shard, as of cohorts by default."""
RATE_HZ = 30.0


class T2MGPT(nn.Module):
    """The same network and loss as in T2M-GPT's code (models/encdec.py, resnet.py, quantize_cnn.py): no masks,
    distances with all three terms, counts and sums as a product with one-hot rows, every step a permutation."""

    def __init__(self, settings: Any, codes: int) -> None:
        super().__init__()
        width, dim, self.decay = settings.width, settings.code_dim, 0.99

        class Block(nn.Module):
            def __init__(self, dilation: int) -> None:
                super().__init__()
                self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
                self.conv2 = nn.Conv1d(width, width, 1)

            def forward(self, x: Tensor) -> Tensor:
                return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))

        def stack() -> list[nn.Module]:
            return [Block(settings.dilation_growth**i) for i in reversed(range(settings.depth))]

        down: list[nn.Module] = [nn.Conv1d(N_JOINTS, width, 3, padding=1), nn.ReLU()]
        up: list[nn.Module] = [nn.Conv1d(dim, width, 3, padding=1), nn.ReLU()]
        for _ in range(settings.downsampling_stages):
            down += [nn.Conv1d(width, width, 4, stride=2, padding=1), *stack()]
            up += [*stack(), nn.Upsample(scale_factor=2), nn.Conv1d(width, width, 3, padding=1)]
        ends = [nn.Conv1d(width, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, N_JOINTS, 3, padding=1)]
        self.encoder = nn.Sequential(*down, nn.Conv1d(width, dim, 3, padding=1))
        self.decoder = nn.Sequential(*up, *ends)
        self.register_buffer("codebook", torch.randn(codes, dim))
        self.register_buffer("code_sum", self.codebook.clone())
        self.register_buffer("code_count", torch.ones(codes))

    def forward(self, angles: Tensor) -> Tensor:
        x = angles.permute(0, 2, 1)
        z = self.encoder(x)
        flat = z.permute(0, 2, 1).contiguous().view(-1, z.shape[1])
        weight = self.codebook.t()
        distance = (flat**2).sum(-1, keepdim=True) - 2 * flat @ weight + (weight**2).sum(0, keepdim=True)
        codes = distance.min(-1)[1]
        quantized = functional.embedding(codes, self.codebook)
        self._learn(flat.detach(), codes)
        commitment = functional.mse_loss(flat, quantized.detach())
        quantized = (flat + (quantized - flat).detach()).view(len(x), -1, z.shape[1]).permute(0, 2, 1)
        y = self.decoder(quantized.contiguous())
        velocity = functional.smooth_l1_loss(y[..., 1:] - y[..., :-1], x[..., 1:] - x[..., :-1])
        return functional.smooth_l1_loss(y, x) + 0.5 * velocity + 0.02 * commitment

    @torch.no_grad()
    def _learn(self, flat: Tensor, codes: Tensor) -> None:
        size = len(self.codebook)
        one_hot = torch.zeros(size, len(flat), device=flat.device).scatter_(0, codes.view(1, -1), 1)
        total, count = one_hot @ flat, one_hot.sum(-1)
        tiled = flat.repeat(-(-size // len(flat)), 1)
        tiled = tiled + torch.randn_like(tiled) * 0.01 / np.sqrt(flat.shape[1])
        fresh = tiled[torch.randperm(len(tiled), device=flat.device)][:size]
        self.code_sum = self.decay * self.code_sum + (1 - self.decay) * total
        self.code_count = self.decay * self.code_count + (1 - self.decay) * count
        usage = (self.code_count.view(-1, 1) >= 1).float()
        means = self.code_sum / self.code_count.view(-1, 1)
        self.codebook = usage * means + (1 - usage) * fresh
        share = count / count.sum()
        torch.exp(-(share * torch.log(share + 1e-7)).sum())  # the perplexity it reports


def training(device: torch.device, rounds: int) -> dict[str, Any]:
    """Ratios of T2M-GPT's step to ours."""
    name = "paper.yaml" if device.type == "cuda" else "demo.yaml"
    settings = load(TokenizerSettings, CONFIGS / name)
    angles = torch.randn(settings.batch_size, settings.window, N_JOINTS, device=device)
    joints = torch.ones_like(angles[:, 0])

    def stepping(
        model: nn.Module, precision: str, ours: bool, call: Callable[..., Any]
    ) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(
            model.parameters(), 2e-4, betas=(0.9, 0.99), fused=True if ours else None
        )

        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "mixed"):
                made = call(angles, joints) if ours else {"whole": (call(angles), 1)}
                loss = sum(part / count for part, count in made.values())
            optimizer.zero_grad()
            loss.backward()
            if ours:
                nn.utils.clip_grad_norm_(model.parameters(), settings.training.gradient_clip)
            optimizer.step()
            loss.item()  # as both write it down; a GPU is waited for

        return step

    def ours() -> MotionVQVAE:
        return MotionVQVAE(settings.network, settings.loss).to(device).train()

    peer = T2MGPT(settings.network, len(ours().quantizer.codebook)).to(device).train()
    steps = {"t2mgpt": stepping(peer, "fp32", False, peer)}
    for precision in ("fp32", "mixed"):
        model = ours()
        steps[precision] = stepping(model, precision, True, model)
    if device.type == "cuda":
        model = ours()
        steps["mixed_compiled"] = stepping(model, "mixed", True, torch.compile(model))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(3 + rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn >= 3:
                seconds[name].append(time.perf_counter() - started)
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(seconds["t2mgpt"], mine, strict=True)), 2)
        for name, mine in seconds.items()
        if name != "t2mgpt"
    }
    print(
        f"training step: T2M-GPT's {statistics.median(seconds['t2mgpt']):.3f} s; ratios {ratios}", flush=True
    )
    return {"train_step_ratio_vs_t2mgpt": max(ratios.values()), "train_step_ratios": ratios}


def write_cohort(movements: list[np.ndarray], times: int, root: str) -> Artifact:
    """A cohort that has these movements `times` times."""

    def one(copy: int, i: int) -> trial.Trial:
        return trial.Trial(
            trial=f"{copy:05d}-{i:03d}",
            participant=f"P{i:03d}",
            split="test" if i < 4 else "train",
            angles_rad=movements[i],
            pelvis=np.zeros((len(movements[i]), 7), np.float32),
            frame_rate_hz=RATE_HZ,
            provenance="synthetic",
            source="benchmark",
            joint_mask=np.ones(N_JOINTS, bool),
            annotations={},
        )

    def build(uri: str) -> dict[str, Any]:
        every = [(copy, i) for copy in range(times) for i in range(len(movements))]
        for at in range(0, len(every), SHARD):
            trials = [one(*which) for which in every[at : at + SHARD]]
            path = Path(storage.join(uri, "trials", f"part-{at // SHARD:05d}.parquet"))
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(trial.table(trials, {}), path)
        frames = sum(len(movements[i]) for _, i in every)
        info = CohortInfo(
            annotations={},
            frame_rate_hz=RATE_HZ,
            participants={"train": len(every)},
            trials=len(every),
            hours=frames / RATE_HZ / 3600,
            quarantined=[],
        )
        storage.write_json(storage.join(uri, "cohort.json"), info.model_dump(mode="json"))
        return {"trials": len(every)}

    return artifact.make("cohort", 1, {"times": times}, {}, build, root, provenance="synthetic")


def tokenizing(most: int, pairs: int, chart: str | None) -> dict[str, Any]:
    """Ratios of `make_tokens` to the bare encoder and to one trial at a time; two workers to one."""
    cluster.connect()
    rng = np.random.default_rng(0)
    lengths = rng.integers(90, 900, size=TRIALS)
    movements = [(0.02 * rng.normal(size=(n, N_JOINTS)).cumsum(0)).astype(np.float32) for n in lengths]
    sizes = [2**i for i in range(most.bit_length())]
    with TemporaryDirectory() as root:
        cohorts = {times: write_cohort(movements, times, root) for times in sizes}
        settings = override(load(TokenizerSettings, CONFIGS / "demo.yaml"), {"steps": 3}, "benchmark")
        made = make_tokenizer(cohorts[1], settings, root)
        tokenizer = MotionTokenizer.load(made.uri)

        def tokenize(times: int, workers: int) -> tuple[float, float]:
            """Seconds of it all, and shards a second once every worker is at work, before the first runs out."""
            how = TokensSettings(workers=workers)
            with TemporaryDirectory() as folder:
                started = time.perf_counter()
                tokens = make_tokens(cohorts[times], made, how, folder)
                seconds = time.perf_counter() - started
                written = sorted(file.stat().st_mtime for file in Path(tokens.path("tokens")).iterdir())
            first, last = len(written) // 4, len(written) * 9 // 10
            return seconds, (last - first) / max(written[last] - written[first], 1e-9)

        def bare() -> float:
            """Seconds of the smallest cohort, by the network alone."""
            return _bare(tokenizer, movements)

        tokenize(1, 1)  # what the first run of all pays
        shard_s = [bare()]
        one = {}
        for times in sizes:
            one[times], _ = tokenize(times, 1)
            shard_s.append(bare())
        # Of neighbouring runs.
        efficiency = [tokenize(most, 2)[1] / tokenize(most, 1)[1] / 2 for _ in range(pairs)]
        alone_s = _alone(tokenizer, movements)
    slope, start = map(float, np.polyfit(sizes, [one[times] for times in sizes], 1))
    encoder_s = statistics.median(shard_s)
    growth = [one[b] / one[a] for a, b in pairwise(sizes)]
    fitted = np.polyval((slope, start), sizes)
    measured = np.array([one[times] for times in sizes])
    r2 = 1 - ((measured - fitted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
    print(f"seconds for 1, 2, 4, ... x {TRIALS} trials: {measured.round(1).tolist()}", flush=True)
    print(
        f"{TRIALS} trials more: {slope:.3f} s, the encoder alone {encoder_s:.3f} s, one by one {alone_s:.3f} s",
        flush=True,
    )
    print(f"each doubling: x {[round(float(g), 2) for g in growth]}", flush=True)
    if chart:
        draw(chart, np.array(sizes) * TRIALS, measured, fitted)
    return {
        "tokenize_ratio_vs_encoder": round(encoder_s / slope, 3),
        "tokenize_ratio_vs_one_at_a_time": round(alone_s / slope, 2),
        "workers_2_efficiency": round(statistics.median(efficiency), 3),
        "linear_r2": round(float(r2), 4),
        "start_s": round(float(start), 2),
        "trials_per_s": round(TRIALS / slope, 1),
        "frames_per_s": round(float(lengths.sum()) / slope),
    }


def _bare(tokenizer: MotionTokenizer, movements: list[np.ndarray]) -> float:
    """Seconds of the network's forward, on one core, on batches of 32 of alike length that lie ready."""
    batches = []
    order = sorted(range(len(movements)), key=lambda i: len(movements[i]))
    for at in range(0, len(order), 32):
        some = [movements[i] for i in order[at : at + 32]]
        longest = -(-max(map(len, some)) // tokenizer.downsampling) * tokenizer.downsampling
        angles = torch.zeros(len(some), longest, N_JOINTS)
        frames = torch.zeros(len(some), longest)
        for row, movement in enumerate(some):
            angles[row, : len(movement)] = torch.from_numpy(movement)
            frames[row, : -(-len(movement) // tokenizer.downsampling) * tokenizer.downsampling] = 1
        batches.append((angles.to(tokenizer.device), frames.to(tokenizer.device)))
    return _on_one_core(lambda: [tokenizer.network.encode(*batch).cpu() for batch in batches])


def _alone(tokenizer: MotionTokenizer, movements: list[np.ndarray]) -> float:
    return _on_one_core(lambda: [tokenizer.encode([movement]) for movement in movements])


def _on_one_core(do: Callable[[], Any], repeats: int = 5) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    do()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return statistics.median(seconds)


def draw(path: str, trials: np.ndarray, seconds: np.ndarray, fitted: np.ndarray) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    axes.plot(trials, fitted, color="0.6", label="a line through them")
    axes.plot(trials, seconds, "o", label="measured")
    axes.set(xlabel="trials", ylabel="seconds", title="Tokenizing a cohort, one worker", xlim=0, ylim=0)
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20, help="training steps of each kind")
    parser.add_argument("--most", type=int, default=64, help="times 64 trials, a power of two of at least 4")
    parser.add_argument("--pairs", type=int, default=3, help="comparisons of two workers with one")
    parser.add_argument("--chart", help="where to draw how time grows with trials")
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures = {**training(device, options.rounds), **tokenizing(options.most, options.pairs, options.chart)}
    ray.shutdown()
    print(json.dumps(figures))


if __name__ == "__main__":
    log_to_stdout()
    main()
