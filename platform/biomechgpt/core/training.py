"""One training loop for every model of this package: Ray Train starts the workers, DeepSpeed steps in each.

A `TrainingTask` says what is trained. `fit` trains it, `core.training_loop` is what runs in each worker.

The result does not depend on the number of workers. All runs step through the same batches in the same order. A
loss is a sum of terms (sum, count), divided by the count over *all* workers. So two workers with half a batch each
take the step that one worker takes with the whole batch. The number of workers may change during a training
(`workers: [1, 4]`). The result then stays the same up to rounding, if the model itself draws no random numbers:
each worker draws its own.

This module loads neither torch nor Ray. Knows nothing about movement or language.
"""

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from biomechgpt.core.settings import InputError
from biomechgpt.core.training_settings import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

LossTerms = dict[str, "tuple[Tensor, Tensor]"]
"""Loss of a batch: {name: (sum over elements, number of elements)}. The sums contain the terms' weights."""


class TrainingTask(ABC):
    """What is trained, on which batches. Each worker builds a subclass from the arguments that `fit` was given."""

    uri: str
    """Folder that `export` writes into. The training loop sets it."""

    @abstractmethod
    def build_model(self) -> "nn.Module":
        """The model to train. Its `forward(**batch)` returns `LossTerms`."""

    @abstractmethod
    def batches(self) -> list[list[int]]:
        """All batches in order, each a list of sample numbers. They depend on the settings alone."""

    @abstractmethod
    def collate(self, samples: list[int]) -> "dict[str, Tensor]":
        """The arguments of the model's `forward` for these samples."""

    validations: int = 0
    """How often the loss of held-out samples is measured, evenly spread; the last time after the last step. The
    weights with the lowest of these losses are kept. 0: never, and the last weights are kept."""

    def validation_batches(self) -> list[list[int]]:
        """Batches of held-out samples, by their own numbers; the same each time."""
        return []

    def collate_validation(self, samples: list[int]) -> "dict[str, Tensor]":
        """The arguments of the model's `forward` for these held-out samples."""
        raise NotImplementedError

    def workload(self, batches: list[list[int]]) -> str:
        """How much there is to train, for the first line of the log."""
        return f"{len(batches)} steps"

    def log_metrics(self) -> dict[str, float]:
        """Metrics of the model in training, equal on every worker.

        `fit` returns about 50 of them as `history`, each with its step and the mean loss of the last steps.
        """
        return {}

    @abstractmethod
    def export(self, model: "nn.Module") -> dict[str, Any]:
        """Write the trained model's files into `self.uri` and return metrics. Only the first worker calls it."""


def fit(
    task: type[TrainingTask], arguments: dict[str, Any], settings: TrainingSettings, uri: str, name: str
) -> dict[str, Any]:
    """Train with Ray Train. Return the metrics of `export`, and `steps`, `loss`, `seconds_training`, `history`.

    Also `seconds_workers`, `seconds_cores`, `seconds_gpus`: seconds times the workers, and times the cores and GPUs
    that they held, with those before a restart. A task with validation batches adds `validation_loss` (the lowest),
    `best_step` (when it was reached: those weights were kept) and `seconds_validation`.

    task: class of what is trained.
    arguments: keyword arguments that each worker builds `task` with.
    uri: folder of the artifact. Checkpoints are in `uri`/run until the end, and a later call resumes from them.
    name: name of the training in progress lines.
    A damaged checkpoint is left out for the one before it.
    Raises InputError if the cluster is too small, or if all checkpoints are damaged. An InputError in a worker ends
    the run at once, without restart.
    """
    from ray import cloudpickle
    from ray.train import ControllerError, TrainingFailedError

    from biomechgpt.core import artifact, checkpoints, cluster, storage

    cluster.connect()
    gpus = 1 if cluster.uses_gpus(settings.accelerator) else 0
    fewest, most = settings.workers_range
    cpus = 1 if gpus else cluster.cpus_for(most)
    cluster.require(fewest, cpus, gpus)
    arguments_of_worker = {
        # Pickled here, so that Ray Train's controller need not import what only workers need (5 s of a core).
        "task": cloudpickle.dumps(task),
        "arguments": arguments,
        # dict() keeps the fields that model_dump() leaves out, which say where the training runs.
        "settings": dict(settings),
        "uri": uri,
        "name": name,
        "threads": cpus,
    }
    run = storage.join(uri, artifact.RUN)
    checkpoints.leave_out_damaged(run, name)
    while True:
        try:
            metrics: dict[str, Any] = (
                _trainer(arguments_of_worker, settings, uri, cpus, gpus).fit().return_value
            )
            break
        except ControllerError as error:
            if isinstance(error.controller_failure, InputError):
                raise error.controller_failure from None
            raise
        except TrainingFailedError:
            # A checkpoint may have been damaged since. Each time there is one less.
            if not checkpoints.leave_out_damaged(run, name):
                raise
    storage.remove(run)
    for name, each in (("seconds_cores", cpus), ("seconds_gpus", gpus)):
        metrics[name] = round(metrics["seconds_workers"] * each, 1)
    return metrics


def _trainer(
    arguments_of_worker: dict[str, Any], settings: TrainingSettings, uri: str, cpus: int, gpus: int
) -> Any:
    """Ray Train's trainer, with checkpoints under `uri`/run. cpus, gpus: what each worker takes."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from biomechgpt.core import artifact, checkpoints, storage

    filesystem, path = storage.arrow_filesystem(storage.join(uri, artifact.RUN))
    return _trainer_class()(
        _run_worker,
        train_loop_config=arguments_of_worker,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,  # type: ignore[arg-type]  # typed as V1's
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=RunConfig(
            name=checkpoints.RUN,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=checkpoints.KEPT),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # typed as V1's
            callbacks=[_stop_at_input_error()],
        ),
    )


def _trainer_class() -> Any:
    """Ray's TorchTrainer without the callbacks that start a process each (3 to 4 s of a core) for nothing here."""
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    from biomechgpt.core import cluster

    unused: tuple[type, ...] = (DatasetsCallback,)  # shards Ray Data's datasets over workers: there are none
    if cluster.is_own():
        # It frees the workers' CPUs if this driver dies. One's own Ray dies with it.
        unused = (*unused, PlacementGroupCleanerCallback)

    class _Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> Any:
            every = super()._create_default_callbacks()  # type: ignore[misc]
            return [one for one in every if not isinstance(one, unused)]

    return _Trainer


def _stop_at_input_error() -> Any:
    """A callback that ends a run at an InputError, whatever `max_failures` allows: a restart would fail again."""
    from ray.train import UserCallback

    class _StopAtInputError(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, InputError):
                    logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # the job prints it in one line
                    raise error

    return _StopAtInputError()


def _run_worker(config: dict[str, Any]) -> dict[str, Any] | None:
    """What Ray Train runs in each worker. The import is in here, because only workers need torch and DeepSpeed."""
    from biomechgpt.core.training_loop import run_worker

    return run_worker(**config)
