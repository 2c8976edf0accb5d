"""One training loop for every model here: Ray Train outside, DeepSpeed inside, exact over workers.

What is trained is a `Trainee`; this module knows nothing about movement or language. The same batches in the
same order whatever the number of workers: a loss is a sum of terms (sum, count), divided by the count over
*all* workers, so two workers with half a batch each take the step of one worker with the whole batch. The
number may change in mid-training (`workers: [1, 4]`) and the result stays the same to rounding, as long as the
model itself draws no random numbers: those are each worker's own.
"""

import ctypes
import logging
import math
import os
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ray import cloudpickle
from torch import Tensor, nn

from biomechgpt.core import cluster, storage
from biomechgpt.core.settings import InputError
from biomechgpt.core.training_settings import TrainingSettings

Terms = dict[str, tuple[Tensor, Tensor]]
"""A batch's loss: {name: (sum over elements, number of elements)}, weights already in the sums."""


WATCHES = 50
"""Rows of a training's history, about."""


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

    def watch(self) -> dict[str, float]:
        """Figures of the model in training, alike on every worker; some `WATCHES` times they become `history`."""
        return {}

    @abstractmethod
    def finish(self, model: nn.Module) -> dict[str, Any]:
        """Write the trained model's files into `self.uri` (first worker only) and return figures."""


def fit(
    trainee: type[Trainee], arguments: dict[str, Any], settings: TrainingSettings, uri: str, name: str
) -> dict[str, Any]:
    """Train under Ray Train and return the figures of `finish`, with `steps`, `loss`, `seconds_training`.

    uri: the artifact's folder; checkpoints live in `uri`/run until the end, and a later call resumes there.
    name: what progress lines call it. Raises InputError where the cluster is too small, and a worker's own, at
    once: nothing that fails by its input is tried again.
    """
    import ray
    from ray.train import (
        CheckpointConfig,
        ControllerError,
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
        UserCallback,
    )
    from ray.train.torch import TorchConfig, TorchTrainer

    class _StopAtBadInput(UserCallback):
        """An error raised in here ends a run, whatever `max_failures` allows."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, InputError):
                    logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # the job says it, in one line
                    raise error

    cluster.connect()
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    fewest, most = settings.workers_range
    cpus_each = 1 if gpus else cluster.cpus_for(most)
    cluster.require(fewest, cpus_each, gpus)
    fs, path = storage.arrow_filesystem(storage.join(uri, "run"))
    trainer = TorchTrainer(
        _loop,  # type: ignore[arg-type]  # Train V2 hands the first worker's result on
        train_loop_config={
            # Packed, so that Ray Train's controller need not import what only workers need: 5 s of a core.
            "trainee": cloudpickle.dumps(trainee),
            "arguments": arguments,
            # The excluded fields travel as well: a dump would leave them out.
            "settings": dict(settings),
            "uri": uri,
            "name": name,
            "threads": cpus_each,
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,  # type: ignore[arg-type]  # typed as V1's
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
            callbacks=[_StopAtBadInput()],  # type: ignore[list-item]  # typed as V1's
        ),
    )
    try:
        figures = trainer.fit().return_value  # type: ignore[attr-defined]  # typed as V1's
    except ControllerError as error:
        if isinstance(error.controller_failure, InputError):
            raise error.controller_failure from None
        raise
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


def deepspeed_config(settings: TrainingSettings, world: int) -> dict[str, Any]:
    """DeepSpeed's own settings for so many workers."""
    return {
        "train_batch_size": world,  # the real batches come from the plan; DeepSpeed only checks the product
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.gradient_clip,
        "zero_optimization": {
            "stage": settings.zero_stage,
            **({"offload_optimizer": {"device": "cpu", "pin_memory": True}} if settings.offload else {}),
        },
        "zero_force_ds_cpu_optimizer": False,  # its own would be compiled on the spot
        "bf16": {"enabled": settings.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """What training changes in a model, by name; a frozen base is not among it."""
    return {
        **{name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
        **dict(model.named_buffers()),
    }


def _save(folder: str, engine: Any, settings: TrainingSettings, progress: dict[str, Any]) -> bool:
    """Write a checkpoint; whether this worker has a part of it. All workers call it."""
    if not settings.portable:
        engine.save_checkpoint(folder, tag="state", client_state=progress, exclude_frozen_parameters=True)
    elif dist.get_rank() == 0:
        state = {"model": _learned(engine.module), "optimizer": engine.optimizer.state_dict(), **progress}
        torch.save(state, Path(folder) / "state.pt")
    return not settings.portable or dist.get_rank() == 0


def _load(folder: str, engine: Any, settings: TrainingSettings) -> dict[str, Any]:
    """Put a checkpoint's state in place; returns its progress. InputError where it is for other workers."""
    parts, expected = len(list(Path(folder).glob("state/*_optim_states.pt"))), dist.get_world_size()
    if parts != (0 if settings.portable else expected):
        raise InputError(
            f"training: expected a checkpoint of zero_stage {settings.zero_stage}, precision "
            f"{settings.precision} and workers {expected} to go on from, found its optimizer "
            + (f"in {parts} parts" if parts else "whole (zero_stage 0, precision fp32 or mixed)")
        )
    if not settings.portable:
        return engine.load_checkpoint(folder, tag="state", load_module_strict=False)[1]
    state = torch.load(Path(folder) / "state.pt", map_location="cpu", weights_only=True)
    for name, tensor in _learned(engine.module).items():
        tensor.copy_(state["model"][name])
    engine.optimizer.load_state_dict(state["optimizer"])
    return state


def _return_memory() -> None:
    """Give the system what batches of ever other sizes left free between blocks: glibc keeps it, and in an hour on
    CPUs that is several times what training needs. Does nothing where there is no glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _loop(config: dict[str, Any]) -> dict[str, Any] | None:
    import ray.train

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

    trainee: Trainee = cloudpickle.loads(config["trainee"])(**config["arguments"])
    trainee.uri = config["uri"]
    model = trainee.model()
    plan = trainee.plan()
    if not plan:
        raise InputError(f"{config['name']}: nothing to train on")
    engine, optimizer, _, _ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        ),
        config=deepspeed_config(settings, world),
        dist_init_required=False,
    )
    start, losses, history = 0, list[float](), list[dict[str, float]]()
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            progress = _load(folder, engine, settings)
        start, losses, history = progress["step"], progress["losses"], progress["history"]

    steps, began, said = len(plan), time.time(), 0.0
    for step in range(start, steps):
        # Random numbers depend on the step alone, so a resumed run draws what an uninterrupted one draws.
        torch.manual_seed((settings.seed * 1_000_003 + step) * world + rank)
        mine = plan[step][rank::world]
        batch = trainee.collate(mine or plan[step][:1])
        batch = {key: value.to(engine.device) for key, value in batch.items()}
        with torch.autocast(engine.device.type, torch.bfloat16, enabled=settings.precision == "mixed"):
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
            group["lr"] = learning_rate(settings, step, steps)
        engine.backward(parts.sum() * world)
        engine.step()
        reported = parts.detach().clone()
        dist.all_reduce(reported)
        losses.append(float(reported.sum()))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"{config['name']}: loss is {losses[-1]} at step {step}")

        done, last = step + 1, step + 1 == steps
        if done % 20 == 0:
            _return_memory()
        if (last or done % max(1, steps // WATCHES) == 0) and (watched := trainee.watch()):
            history.append({"step": done, **watched})
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
                progress = {"step": done, "losses": losses[-50:], "history": history}
                has_part = _save(folder, engine, settings, progress)
                ray.train.report(
                    {"step": done, "loss": losses[-1]},
                    checkpoint=ray.train.Checkpoint.from_directory(folder) if has_part else None,
                )
    model.eval()
    # With stage 3 each worker has a part of the weights: all put them together, for the first to write.
    with deepspeed.zero.GatheredParameters(list(model.parameters()), enabled=settings.zero_stage == 3):
        figures = trainee.finish(model) if rank == 0 else {}
    if rank != 0:
        return None
    recent = losses[-50:] or [math.nan]
    return {
        **figures,
        **({"history": history} if history else {}),
        "steps": steps,
        "loss": round(sum(recent) / len(recent), 5),
        "seconds_training": round(time.time() - began, 2),
    }
