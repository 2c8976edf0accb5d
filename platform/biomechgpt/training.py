"""One training loop for every model here: Ray Train outside, DeepSpeed inside, exact over workers.

What is trained is a `Trainee`; this module knows nothing about movement or language. The same batches in the
same order whatever the number of workers: a loss is a sum of terms (sum, count), divided by the count over
*all* workers, so two workers with half a batch each take the step of one worker with the whole batch.
"""

import math
import os
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from biomechgpt import cluster, storage
from biomechgpt.settings import InputError, Settings

Terms = dict[str, tuple[Tensor, Tensor]]
"""A batch's loss: {name: (sum over elements, number of elements)}, weights already in the sums."""


class TrainingSettings(Settings):
    """How a training steps. The last four say where it runs: they do not change the result, nor its name."""

    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = Field(1.0, ge=0, description="largest norm of a gradient; 0: no limit")
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints", exclude=True)
    workers: int = Field(1, ge=1, exclude=True)
    zero_stage: Literal[0, 1, 2] = Field(0, description="DeepSpeed ZeRO stage", exclude=True)
    max_failures: int = Field(2, ge=0, description="restarts after a lost worker", exclude=True)


class Trainee(ABC):
    """What is trained. Subclasses are built inside each worker from the keyword arguments given to `fit`."""

    uri: str
    """Where `finish` writes the result."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The model; its `forward(**batch)` returns `Terms`."""

    @abstractmethod
    def plan(self) -> list[list[int]]:
        """All global batches in order, as sample numbers; a function of the settings alone."""

    @abstractmethod
    def collate(self, samples: list[int]) -> dict[str, Tensor]:
        """The model's arguments for these samples."""

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Optimizer groups; all trainable parameters by default."""
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    @abstractmethod
    def finish(self, model: nn.Module) -> dict[str, Any]:
        """Write the trained model's files into `self.uri` (first worker only) and return figures."""


def fit(
    trainee: type[Trainee], arguments: dict[str, Any], settings: TrainingSettings, uri: str, name: str
) -> dict[str, Any]:
    """Train under Ray Train and return the figures of `finish`, with `steps`, `loss`, `seconds_training`.

    uri: the artifact's folder; checkpoints live in `uri`/run until the end, and a later call resumes there.
    name: what progress lines call it. Raises InputError where the cluster is too small.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    cluster.connect()
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    cpus_each = 1 if gpus else cluster.cpus_for(settings.workers)
    cluster.require(settings.workers, cpus_each, gpus)
    fs, path = storage.arrow_filesystem(storage.join(uri, "run"))
    trainer = TorchTrainer(
        _loop,  # type: ignore[arg-type]  # Train V2 hands the first worker's result on
        train_loop_config={
            "trainee": trainee,
            "arguments": arguments,
            # The excluded fields travel as well: a dump would leave them out.
            "settings": dict(settings),
            "uri": uri,
            "name": name,
            "threads": cpus_each,
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus_each, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=fs,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # typed as V1's
        ),
    )
    figures = trainer.fit().return_value  # type: ignore[attr-defined]  # typed as V1's
    storage.remove(storage.join(uri, "run"))
    return figures


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """The rate of a step: linear warm-up, then constant or a cosine down to a tenth."""
    warmup = min(settings.warmup_steps, steps // 2)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, steps - warmup)
    return settings.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def _deepspeed_config(settings: TrainingSettings, world: int) -> dict[str, Any]:
    return {
        "train_batch_size": world,  # the real batches come from the plan; DeepSpeed only checks the product
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.gradient_clip,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": settings.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": settings.learning_rate,
                "betas": list(settings.betas),
                "weight_decay": settings.weight_decay,
                "torch_adam": True,
            },
        },
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _loop(config: dict[str, Any]) -> dict[str, Any] | None:
    import logging

    import ray.train
    import torch.distributed as dist

    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Its shared-memory all-reduce would be compiled on the spot, with a C++ compiler; gloo needs none.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    settings = TrainingSettings(**config["settings"])
    torch.set_num_threads(config["threads"])
    torch.manual_seed(settings.seed)
    rank, world = dist.get_rank(), dist.get_world_size()

    trainee: Trainee = config["trainee"](**config["arguments"])
    trainee.uri = config["uri"]
    model = trainee.model()
    plan = trainee.plan()
    if not plan:
        raise InputError(f"{config['name']}: nothing to train on")
    engine, optimizer, _, _ = deepspeed.initialize(
        model=model,
        model_parameters=trainee.parameters(model),
        config=_deepspeed_config(settings, world),
        dist_init_required=False,
    )
    start = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            _, state = engine.load_checkpoint(folder, tag="state", load_module_strict=False)
            start = state["step"]

    steps, began, said, losses = len(plan), time.time(), 0.0, []
    for step in range(start, steps):
        # Random numbers depend on the step alone, so a resumed run draws what an uninterrupted one draws.
        torch.manual_seed((settings.seed * 1_000_003 + step) * world + rank)
        mine = plan[step][rank::world]
        batch = trainee.collate(mine or plan[step][:1])
        batch = {key: value.to(engine.device) for key, value in batch.items()}
        terms: Terms = engine(**batch)
        share = 1.0 if mine else 0.0
        counts = torch.stack([count.float() for _, count in terms.values()]) * share
        dist.all_reduce(counts)
        counts = counts.clamp(min=1)
        # DeepSpeed averages gradients over workers; a sum over workers is wanted.
        parts = (
            torch.stack([part / count for (part, _), count in zip(terms.values(), counts, strict=True)])
            * share
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, steps) * group.get("lr_scale", 1.0)
        engine.backward(parts.sum() * world)
        engine.step()
        reported = parts.detach().clone()
        dist.all_reduce(reported)
        losses.append(float(reported.sum()))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"{config['name']}: loss is {losses[-1]} at step {step}")

        done, last = step + 1, step + 1 == steps
        if rank == 0 and (last or time.time() - said > 10):
            said = time.time()
            left = (said - began) / (done - start) * (steps - done)
            recent = losses[-50:]
            detail = " ".join(f"{k} {v:.4f}" for k, v in zip(terms, reported.tolist(), strict=True))
            print(
                f"{config['name']}: step {done}/{steps}  loss {sum(recent) / len(recent):.4f}  ({detail})  "
                f"{left:.0f} s left",
                flush=True,
            )
        if done % settings.checkpoint_every == 0 and not last:
            with tempfile.TemporaryDirectory() as folder:
                engine.save_checkpoint(
                    folder, tag="state", client_state={"step": done}, exclude_frozen_parameters=True
                )
                ray.train.report(
                    {"step": done, "loss": losses[-1]},
                    checkpoint=ray.train.Checkpoint.from_directory(folder),
                )
    if rank != 0:
        return None
    model.eval()
    figures = trainee.finish(model)
    recent = losses[-50:] or [math.nan]
    return {
        **figures,
        "steps": steps,
        "loss": round(sum(recent) / len(recent), 5),
        "seconds_training": round(time.time() - began, 2),
    }
