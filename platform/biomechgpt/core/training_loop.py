"""The training loop in one worker: step, report progress, write checkpoints, resume. `core.training.fit` starts it.

Knows nothing about movement or language.
"""

import ctypes
import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from ray import cloudpickle
from torch import Tensor, nn

from biomechgpt.core import checkpoints
from biomechgpt.core.logs import SECONDS_BETWEEN_LINES, log_to_stdout, logger
from biomechgpt.core.settings import InputError
from biomechgpt.core.training import LossTerms, TrainingTask
from biomechgpt.core.training_settings import TrainingSettings

HISTORY_ROWS = 50
"""About how many rows of `TrainingTask.log_metrics` a training keeps."""
RECENT_STEPS = 50
"""Steps whose mean loss is reported."""
_STEPS_BETWEEN_RELEASES = 20


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, or a cosine that ends at a tenth."""
    warmup = min(settings.warmup_steps, steps // 2)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, steps - warmup)
    return settings.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def deepspeed_config(settings: TrainingSettings, workers: int) -> dict[str, Any]:
    """DeepSpeed's own configuration for a number of workers."""
    return {
        # The real batches come from `TrainingTask.batches`. DeepSpeed only checks that these numbers agree.
        "train_batch_size": workers,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.gradient_clip,
        "zero_optimization": {
            "stage": settings.zero_stage,
            **({"offload_optimizer": {"device": "cpu", "pin_memory": True}} if settings.offload else {}),
        },
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own would be compiled first, with a C++ compiler
        "bf16": {"enabled": settings.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


class _Engine:
    """DeepSpeed around a model: steps that equal those of one worker, and checkpoints."""

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        import deepspeed

        self.settings, self.rank, self.workers = settings, dist.get_rank(), dist.get_world_size()
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=torch.optim.AdamW(
                [p for p in model.parameters() if p.requires_grad],
                lr=settings.learning_rate,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
                fused=True,
            ),
            config=deepspeed_config(settings, self.workers),
            dist_init_required=False,
        )

    def share(self, batch: list[int]) -> tuple[list[int], bool]:
        """This worker's samples of a batch, and whether they count: worker r takes samples r, r + workers, ...

        One without samples computes on another worker's, as all workers have to take part in each exchange.
        """
        own = batch[self.rank :: self.workers]
        return own or batch[:1], bool(own)

    def train_step(self, batch: dict[str, Tensor], rate: float, counts: bool) -> dict[str, Tensor]:
        """Take one step. Return the mean of each loss term over the samples of all workers.

        batch: this worker's samples.
        rate: learning rate.
        counts: False for a worker that has no samples of its own: its loss is multiplied by 0.
        """
        terms = self._terms(batch)
        factor = 1.0 if counts else 0.0
        elements = torch.stack([count.float() for _, count in terms.values()]) * factor
        dist.all_reduce(elements)
        elements = elements.clamp(min=1)
        # Each worker's share of the mean over all workers: its own sum, divided by everybody's count.
        shares = (
            torch.stack([total / count for (total, _), count in zip(terms.values(), elements, strict=True)])
            * factor
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        # DeepSpeed averages gradients over workers. The shares need their sum, hence the factor.
        self._engine.backward(shares.sum() * self.workers)
        self._engine.step()
        means = shares.detach().clone()
        dist.all_reduce(means)
        return dict(zip(terms, means, strict=True))

    def _terms(self, batch: dict[str, Tensor]) -> LossTerms:
        """The model's loss of a batch."""
        batch = {key: value.to(self._engine.device) for key, value in batch.items()}
        with torch.autocast(
            self._engine.device.type, torch.bfloat16, enabled=self.settings.precision == "mixed"
        ):
            terms: LossTerms = self._engine(**batch)
        return terms

    def mean_loss(self, task: TrainingTask, batches: list[list[int]]) -> float:
        """The loss of held-out samples, without dropout: each term's mean over all samples, then their sum."""
        modes = {module: module.training for module in self._engine.module.modules()}
        self._engine.module.eval()
        parts = []  # of each batch: sum and count of each term
        with torch.no_grad():
            for batch in batches:
                samples, counts = self.share(batch)
                terms = self._terms(task.collate_validation(samples))
                part = torch.stack([torch.stack([t.float(), n.float()]) for t, n in terms.values()])
                parts.append(part.double() * (1.0 if counts else 0.0))
        totals = torch.stack(parts).sum(dim=0)
        dist.all_reduce(totals)
        for module, mode in modes.items():
            module.training = mode
        return float((totals[:, 0] / totals[:, 1].clamp(min=1)).sum())

    def trained_weights(self) -> dict[str, Tensor]:
        """A copy of what training changes, in the CPU's memory; {} on all workers but the first."""
        with self.gathered_weights(trained_only=True):
            state = _trained_state(self._engine.module) if self.rank == 0 else {}
            return {name: tensor.cpu().clone() for name, tensor in state.items()}

    def put_weights(self, weights: dict[str, Tensor]) -> None:
        """Give the model what `trained_weights` returned. With ZeRO stage 3 inside `gathered_weights`."""
        for name, tensor in _trained_state(self._engine.module).items():
            tensor.copy_(weights[name])

    def gathered_weights(self, trained_only: bool = False) -> AbstractContextManager[None]:
        """Inside, every worker has all weights. With ZeRO stage 3 each worker otherwise holds a part of them."""
        import deepspeed

        weights = [p for p in self._engine.module.parameters() if p.requires_grad or not trained_only]
        gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
            weights, enabled=self.settings.zero_stage == 3
        )
        return gathered

    def save(self, folder: str, progress: dict[str, Any]) -> bool:
        """Write a checkpoint, and return whether this worker wrote a part of it. All workers call it."""
        if not self.settings.portable:
            self._engine.save_checkpoint(
                folder, tag="state", client_state=progress, exclude_frozen_parameters=True
            )
        elif self.rank == 0:
            state = {
                "model": _trained_state(self._engine.module),
                "optimizer": self._engine.optimizer.state_dict(),
                **progress,
            }
            torch.save(state, Path(folder) / "state.pt")
        return not self.settings.portable or self.rank == 0

    def load(self, folder: str) -> dict[str, Any]:
        """Restore a checkpoint and return its progress. Raises InputError if other settings wrote it.

        A checkpoint is portable (one file, for any number of workers) or in one part for each worker.
        """
        parts = len(list(Path(folder).glob("state/*_optim_states.pt")))
        if parts != (0 if self.settings.portable else self.workers):
            raise InputError(
                f"training: expected a checkpoint of zero_stage {self.settings.zero_stage}, precision "
                f"{self.settings.precision} and workers {self.workers} to go on from, found its optimizer "
                + (f"in {parts} parts" if parts else "whole (zero_stage 0, precision fp32 or mixed)")
            )
        if not self.settings.portable:
            _, progress = self._engine.load_checkpoint(folder, tag="state", load_module_strict=False)
            return dict(progress)
        state: dict[str, Any] = torch.load(Path(folder) / "state.pt", map_location="cpu", weights_only=True)
        self.put_weights(state["model"])
        self._engine.optimizer.load_state_dict(state["optimizer"])
        return state


def _trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by name: trainable parameters and buffers, not the frozen weights."""
    return {
        **{name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
        **dict(model.named_buffers()),
    }


class _Progress:
    """How far a training is: its step, its recent losses, its history, and the progress line with the time left."""

    def __init__(self, name: str, steps: int, workers: int) -> None:
        self.name, self.steps, self.step, self._workers = name, steps, 0, workers
        self.losses: list[float] = []
        self.history: list[dict[str, float]] = []
        self._first_step, self._started, self._last_line = 0, time.time(), 0.0
        self._worker_seconds_before = 0.0
        self.best: dict[str, Any] = {}
        """The lowest validation loss, its step and the weights of that step; {} before the first."""
        self.seconds_validation = 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "step": self.step,
            "losses": self.losses,
            "history": self.history,
            "worker_seconds": self._worker_seconds(),
            "best": self.best,
            "seconds_validation": self.seconds_validation,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.losses, self.history = state["step"], state["losses"], state["history"]
        self._first_step = self.step
        # Older checkpoints have no such entries.
        self._worker_seconds_before = state.get("worker_seconds", 0.0)
        self.best, self.seconds_validation = state.get("best", {}), state.get("seconds_validation", 0.0)

    def _worker_seconds(self) -> float:
        """Seconds that workers have trained, also before a restart, perhaps with another number of workers."""
        return self._worker_seconds_before + (time.time() - self._started) * self._workers

    @property
    def finished(self) -> bool:
        return self.step == self.steps

    @property
    def wants_metrics(self) -> bool:
        """Whether the history gets a row after this step."""
        return self.finished or self.step % max(1, self.steps // HISTORY_ROWS) == 0

    def is_validated(self, times: int) -> bool:
        """Whether this is one of the steps after which the validation loss is measured `times` times in all."""
        return self.step in {-(-self.steps * k // times) for k in range(1, times + 1)}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count a step with these losses. Raises RuntimeError for a loss that is not finite."""
        loss = float(torch.stack(list(terms.values())).sum())
        if not math.isfinite(loss):
            raise RuntimeError(f"{self.name}: loss is {loss} at step {self.step}")
        self.step += 1
        self.losses = [*self.losses[-RECENT_STEPS + 1 :], loss]

    def log(self, terms: dict[str, Tensor]) -> None:
        """Log a line every 10 s, and one at the end."""
        now = time.time()
        if not self.finished and now - self._last_line <= SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        seconds_left = (now - self._started) / (self.step - self._first_step) * (self.steps - self.step)
        detail = " ".join(f"{name} {value:.4f}" for name, value in terms.items())
        logger.info(
            f"{self.name}: step {self.step}/{self.steps}  loss {self.recent_loss:.4f}  ({detail})  "
            f"{seconds_left:.0f} s left"
        )

    @property
    def recent_loss(self) -> float:
        """Mean loss of the last steps."""
        return sum(self.losses) / len(self.losses) if self.losses else math.nan

    def summary(self) -> dict[str, Any]:
        """What `fit` returns beside the task's own metrics."""
        validation: dict[str, Any] = {}
        if self.best:
            validation = {
                "validation_loss": self.best["loss"],
                "best_step": self.best["step"],
                "seconds_validation": round(self.seconds_validation, 2),
            }
        return {
            **validation,
            "history": self.history,
            "steps": self.steps,
            "loss": round(self.recent_loss, 5),
            "seconds_training": round(time.time() - self._started, 2),
            "seconds_workers": round(self._worker_seconds(), 2),
        }


def run_worker(
    task: bytes, arguments: dict[str, Any], settings: dict[str, Any], uri: str, name: str, threads: int
) -> dict[str, Any] | None:
    """Train in this worker, with the parameters of `fit`. Return metrics on the first worker, None on others."""
    log_to_stdout()
    _set_up_deepspeed()
    training = TrainingSettings(**settings)
    torch.set_num_threads(threads)
    torch.manual_seed(training.seed)
    trained: TrainingTask = cloudpickle.loads(task)(**arguments)
    trained.uri = uri
    model, batches = trained.build_model(), trained.batches()
    if not batches:
        raise InputError(f"{name}: nothing to train on")
    held_out = trained.validation_batches() if trained.validations else []
    engine = _Engine(model, training)
    progress = _Progress(name, len(batches), engine.workers)
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            if problem := checkpoints.damage(folder):  # `fit` goes on from the one before it
                raise RuntimeError(f"{name}: a damaged checkpoint: {problem}")
            progress.restore(engine.load(folder))
            if engine.rank and progress.best:
                progress.best["weights"] = {}  # only the first worker keeps them
    if engine.rank == 0:
        resumed = f", going on after step {progress.step}" if progress.step else ""
        logger.info(f"{name}: {trained.workload(batches)}{resumed}")
    for step in range(progress.step, len(batches)):
        _seed(training, step)
        samples, counts = engine.share(batches[step])
        terms = engine.train_step(
            trained.collate(samples), learning_rate(training, step, len(batches)), counts
        )
        progress.add(terms)
        validation: dict[str, float] = {}
        if held_out and progress.is_validated(trained.validations):
            validation = {"validation_loss": _validate(engine, progress, trained, held_out)}
        if progress.wants_metrics or validation:
            loss = round(progress.recent_loss, 5)
            progress.history.append(
                {"step": progress.step, "loss": loss, **trained.log_metrics(), **validation}
            )
        if engine.rank == 0:
            progress.log(terms)
        if progress.step % training.checkpoint_every == 0 and not progress.finished:
            _checkpoint(engine, progress)
        if progress.step % _STEPS_BETWEEN_RELEASES == 0:
            _release_memory()
    model.eval()
    with engine.gathered_weights():
        if engine.rank != 0:
            return None
        if progress.best:
            engine.put_weights(progress.best["weights"])
        return {**trained.export(model), **progress.summary()}


def _validate(
    engine: _Engine, progress: _Progress, trained: TrainingTask, held_out: list[list[int]]
) -> float:
    """The validation loss. The weights are kept if it is the lowest until now. All workers call it."""
    started = time.time()
    loss = round(engine.mean_loss(trained, held_out), 5)
    if not math.isfinite(loss):
        raise RuntimeError(f"{progress.name}: validation loss is {loss} at step {progress.step}")
    if not progress.best or loss < progress.best["loss"]:
        progress.best = {"loss": loss, "step": progress.step, "weights": engine.trained_weights()}
    progress.seconds_validation += time.time() - started
    if engine.rank == 0:
        best = progress.best["step"]
        kept = "kept" if best == progress.step else f"that of step {best} is lower"
        logger.info(
            f"{progress.name}: step {progress.step}/{progress.steps}  validation loss {loss:.4f}, {kept}"
        )
    return loss


def _seed(settings: TrainingSettings, step: int) -> None:
    """Seed by the step (and the worker), so that a resumed run draws what an uninterrupted one draws."""
    torch.manual_seed((settings.seed * 1_000_003 + step) * dist.get_world_size() + dist.get_rank())


def _checkpoint(engine: _Engine, progress: _Progress) -> None:
    """Write a checkpoint and hand it to Ray Train, which resumes from the latest."""
    with tempfile.TemporaryDirectory() as folder:
        has_part = engine.save(folder, progress.state())
        if has_part:
            parts = 1 if engine.settings.portable else engine.workers
            checkpoints.write_checksums(folder, progress.step, engine.rank, parts)
        ray.train.report(
            {"step": progress.step, "loss": progress.losses[-1]},
            checkpoint=ray.train.Checkpoint.from_directory(folder) if has_part else None,
        )


def _set_up_deepspeed() -> None:
    """Let DeepSpeed run without a GPU and without a C++ compiler, and silence it."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # read at import
    # DeepSpeed's autotuner, which is not used here, would import both: five seconds of a core in every worker.
    with _hidden("mlflow", "xgboost"):
        import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # Its all-reduce in shared memory would be compiled first, with a C++ compiler. Gloo needs none.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Inside, importing these modules raises ImportError. A module that is loaded already stays loaded."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks such a module
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _release_memory() -> None:
    """Return free memory to the system. Does nothing without glibc.

    Batches differ in size, so free blocks pile up between used ones, and glibc keeps them. In an hour on CPUs that
    is several times the memory that training needs.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
