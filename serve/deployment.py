"""The Ray Serve deployment that holds a model bundle in memory, and the client that the gateway calls it with."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import ray
from pydantic import Field
from ray import serve
from ray.exceptions import RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from biomechgpt.answering.answer import Answer
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.tracking import TrackingSettings
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import MeasuredTask
from serve import metrics
from serve.errors import ApiError
from serve.memory import Memory, MemoryClient
from serve.model import (
    SERVED,
    Failed,
    ModelChanged,
    ModelClient,
    OtherModel,
    Replica,
    ServedModel,
    answer_each,
)
from serve.ray_meter import RayMeter
from serve.running import log_as_json
from serve.schema import ModelSummary
from serve.settings import GatewaySettings

LOOPBACK = "127.0.0.1"
RESTART_S = 10
"""Seconds after which a lost model may be back."""
ASKED_AGAIN = 20
"""How often replicas are asked until one has the model of a request, during an upgrade."""
ASKED_AGAIN_S = 0.05
"""Seconds between these calls."""
ROLLING: dict[str, Any] = {"max_surge_percent": 100, "max_constructor_retry_count": 3}
"""Upgrades: new replicas start before old ones stop. If new ones cannot start, the old ones stay."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Logging of both deployments. Requests concern patients, so none is logged."""


class ServeSettings(GatewaySettings):
    """Settings of the whole application."""

    bundle: str
    """URI of a model artifact, or models:/NAME@ALIAS of the registry."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the registry is."""
    replicas: int = Field(1, ge=1)
    """Number of copies of the model."""
    gpus: float = Field(0, ge=0)
    """GPUs of each copy."""
    batch_size: int = Field(16, ge=1)
    """Largest number of questions that are answered together."""
    batch_wait_s: float = Field(0.01, ge=0)
    """Seconds to wait for further questions of a batch."""
    max_queued: int = Field(64, ge=1)
    """Largest number of requests that wait for a replica. Further ones are refused with 503."""


def listen_on_loopback() -> None:
    """In a replica on a node whose address is loopback: let other machines not reach the port of the replica.

    Ray Serve opens that port on every address, after the constructor of a deployment, and has no setting for it.
    """
    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    from ray.serve._private import replica

    add_port = vars(replica)["add_port_to_grpc_server"]

    def add_port_on_loopback(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", LOOPBACK))

    vars(replica)["add_port_to_grpc_server"] = add_port_on_loopback


def set_up_replica() -> None:
    """Begin a replica: where it listens, how it logs, and what it counts with."""
    listen_on_loopback()
    log_as_json()
    metrics.use(RayMeter())


@serve.deployment(max_ongoing_requests=256, logging_config=QUIET, **ROLLING)
class Model(Replica):
    """A model bundle in memory. Questions of different requests are answered in one batch.

    bundle: URI of the model artifact.
    batch_size: largest number of questions in a batch.
    batch_wait_s: seconds to wait for further questions of a batch.
    """

    def __init__(self, bundle: str, batch_size: int, batch_wait_s: float) -> None:
        import torch

        from biomechgpt.answering.answerer import Answerer
        from biomechgpt.answering.conformal import COVERAGE
        from biomechgpt.language import network
        from biomechgpt.language.tiny_model import is_stand_in
        from biomechgpt.questions.intent import IntentClassifier
        from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer, require_same_tokenizer

        set_up_replica()
        network.quiet()
        torch.set_num_threads(cluster.cpus_for(1))
        model = artifact.load(bundle, "model", verify=True)
        self.answerer = Answerer.load(model.uri)
        tokenizer_uri = storage.join(model.uri, "motion_tokenizer")
        require_same_tokenizer(model, artifact.load(tokenizer_uri, "tokenizer"))
        self.tokenizer = MotionTokenizer.load(tokenizer_uri)
        self.intent = IntentClassifier(self.answerer.tasks, self.answerer.info.labels)
        tokens_per_s, n_posture = self.tokenizer.tokens_per_s, self.tokenizer.n_posture
        longest, ood = self.answerer.longest_movement(n_posture), self.answerer.calibration.ood
        self.served = ServedModel(
            summary=ModelSummary(
                fingerprint=model.fingerprint, base=model.metrics["base"], data=model.provenance
            ),
            tasks=self.answerer.tasks,
            person_tasks=list(self.answerer.calibration.people),
            coverage=COVERAGE,
            labels=self.intent.labels,
            writes_text=not is_stand_in(self.answerer.info.base),
            max_question_tokens=self.answerer.longest_question,
            frame_rate_hz=self.tokenizer.frame_rate_hz,
            layout=self.tokenizer.layout,
            tokenizer=self.tokenizer.fingerprint,
            max_duration_s=(longest - n_posture) / tokens_per_s,
            typical_duration_s=(self.answerer.info.median_tokens - n_posture) / tokens_per_s,
            likelihood_scale=ood.scales.get("log_likelihood") if ood else None,
        )
        self.answer.set_max_batch_size(batch_size)  # type: ignore[attr-defined]
        self.answer.set_batch_wait_timeout_s(batch_wait_s)  # type: ignore[attr-defined]
        self._warm_up()

    def _warm_up(self) -> None:
        """Answer one question of each task, because the first one waits until kernels are loaded."""
        motion = MotionTokens(self.tokenizer.layout.example(4))
        self.answerer.answer(
            [
                Query([motion], "single", None, "?"),
                *(
                    Query([motion, motion], "compare", name, "?")
                    if task.n_movements == 2
                    else Query([motion], "single", name, "?")
                    for name, task in self.answerer.tasks.items()
                    if not isinstance(task, MeasuredTask)  # the model is never asked them
                ),
            ]
        )

    async def describe(self) -> ServedModel:
        """The description of the model for the gateway."""
        return self.served

    async def tokenize(self, angles_rad: np.ndarray, joint_mask: np.ndarray, provenance: str) -> MotionTokens:
        """The motion tokens of a recording, with its statistics.

        angles_rad: (T, 34) joint angles at the tokenizer's frame rate.
        joint_mask: (34,) bool, True for each recorded joint.
        provenance: recorded or synthetic.
        """
        (motion,) = await asyncio.to_thread(
            self.answerer.analyse, self.tokenizer, [angles_rad], [joint_mask], provenance
        )
        return motion

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.01)
    async def answer(self, queries: list[Query]) -> list[Answer | Failed]:
        """As `Answerer.answer`, the queries of several requests as one batch. One that fails has `Failed`."""

        metrics.observe(metrics.BATCH_SIZE, len(queries))

        def answer(batch: Sequence[Query]) -> Sequence[Answer]:
            return self.answerer.answer(batch, writes_text=self.served.writes_text)

        return await asyncio.to_thread(answer_each, answer, queries)

    async def explain(
        self, angles_rad: np.ndarray, joint_mask: np.ndarray, queries: list[tuple[str, str]]
    ) -> list[Any]:
        """As `biomechgpt.answering.explain.explain`."""
        from biomechgpt.answering.explain import explain

        return await asyncio.to_thread(
            explain, self.answerer, self.tokenizer, angles_rad, joint_mask, queries
        )

    async def explain_tokens(self, motion: MotionTokens, query: tuple[str, str]) -> Any:
        """The explanation of an answer about motion tokens: about the movement that they decode to."""
        from biomechgpt.answering.explain import explain

        angles = await asyncio.to_thread(self._decode, motion.tokens)
        mask = np.ones(angles.shape[1], bool)
        (explanation,) = await asyncio.to_thread(
            explain, self.answerer, self.tokenizer, angles, mask, [query]
        )
        return explanation

    def _decode(self, tokens: Sequence[int]) -> np.ndarray:
        """The movement (T, 34) that motion tokens stand for."""
        complete = self.tokenizer.layout.whole(len(tokens))  # an incomplete last step cannot be decoded
        angles: np.ndarray = self.tokenizer.decode([np.asarray(tokens[:complete])])[0]
        return angles

    async def recognise(self, question: str, tasks: list[str]) -> Intent:
        """What a question in free words asks. tasks: names of the tasks that can be asked."""
        return await asyncio.to_thread(self.intent.recognise, question, tasks)

    async def question_lengths(self, questions: list[str]) -> list[int]:
        """Number of tokens of each question, as the language model reads it."""
        return [len(self.answerer.encoder.question(question)) for question in questions]


@serve.deployment(
    name="Memory", max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}, logging_config=QUIET
)
class MemoryReplica(Memory):
    """The memory of all gateways of an application."""

    def __init__(self, settings: GatewaySettings) -> None:
        set_up_replica()
        super().__init__(settings)


_LOST = (RayActorError, WorkerCrashedError, ReplicaUnavailableError)
"""Errors of a replica that died or cannot be reached. Every method may be called again."""


class _Remote:
    """Calls the methods of a deployment through its handle. A call whose replica is lost is made once more.

    Calls of a model are made until a replica has the model that the request began with.

    Raises ApiError `busy` when too many requests are waiting or no replica answers, `bad_request` for something
    that the model cannot read; ModelChanged.
    is_model: whether the deployment is a `Replica`.
    """

    def __init__(self, handle: DeploymentHandle[Any], is_model: bool = False) -> None:
        self.handle, self.is_model = handle, is_model

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            if not self.is_model:
                return await self._call(method, *arguments)
            served = None if method == "describe" else SERVED.get()
            fingerprint = None if served is None else served.summary.fingerprint
            for _ in range(ASKED_AGAIN):
                result = await self._call("call", fingerprint, method, *arguments)
                if not isinstance(result, OtherModel):
                    return result
                await asyncio.sleep(ASKED_AGAIN_S)
            raise ModelChanged

        return call

    async def _call(self, method: str, *arguments: Any) -> Any:
        for is_last in (False, True):
            try:
                return await getattr(self.handle, method).remote(*arguments)
            except BackPressureError:
                raise ApiError("busy", "too many requests are waiting; try again later") from None
            except DeploymentUnavailableError:
                raise ApiError("busy", "no model is ready; try again later") from None
            except InputError as error:
                raise ApiError("bad_request", str(getattr(error, "cause", error))) from None
            except _LOST:
                if is_last:
                    message = "the model was lost twice while it answered; try again later"
                    raise ApiError("busy", message, retry_after_s=RESTART_S) from None


def remote_memory(handle: DeploymentHandle[Any]) -> MemoryClient:
    """The client of a running `serve.memory.Memory`."""
    return cast(MemoryClient, _Remote(handle))


def remote_model(handle: DeploymentHandle[Any]) -> ModelClient:
    """The client of a running deployment."""
    return cast(ModelClient, _Remote(handle, is_model=True))
