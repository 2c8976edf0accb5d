"""The deployment that holds a bundle in memory: what `app`'s gateway asks of it."""

import asyncio
from typing import Any

import numpy as np
from ray import serve

from biomechgpt.core import artifact, cluster, storage
from biomechgpt.motion import gait, parameters
from biomechgpt.prompts.encoding import Movement, as_it_is
from serve.schema import About

QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""Who asked what is nobody's business: no request is logged."""


@serve.deployment(max_ongoing_requests=256, logging_config=QUIET)
class Model:
    """A bundle in memory. Questions of different requests are answered together."""

    def __init__(self, bundle: str, batch_size: int, batch_wait_s: float) -> None:
        import torch

        from biomechgpt.answering.answerer import Answerer
        from biomechgpt.language import network
        from biomechgpt.questions.intent import Recognizer
        from biomechgpt.tokenizer import MotionTokenizer, require_same_tokenizer

        network.quiet()
        torch.set_num_threads(cluster.cpus_for(1))
        made = artifact.load(bundle, "model", verify=True)
        self.answerer = Answerer.load(made.uri)
        motion = storage.join(made.uri, "motion_tokenizer")
        require_same_tokenizer(made, artifact.load(motion, "tokenizer"))
        self.motion = MotionTokenizer.load(motion)
        self.recognizer = Recognizer(self.answerer.tasks)
        self.about = {
            "model": About(fingerprint=made.fingerprint, base=made.figures["base"], data=made.data),
            "tasks": self.answerer.tasks,
            "of_people": list(self.answerer.calibration.people),
            "longest_question": self.answerer.longest_question,
            "frame_rate_hz": self.motion.frame_rate_hz,
            "codes": len(self.motion.codebook),
            "tokenizer": self.motion.fingerprint,
            "longest_s": self.answerer.longest_movement / self.motion.tokens_per_s,
            "usual_s": self.answerer.info.median_tokens / self.motion.tokens_per_s,
        }
        self.answer.set_max_batch_size(batch_size)  # type: ignore[attr-defined]
        self.answer.set_batch_wait_timeout_s(batch_wait_s)  # type: ignore[attr-defined]
        # The first question pays for loading kernels; ask it before anyone waits.
        one = [0] * 32
        tasks = self.answerer.tasks.items()
        self.answerer.answer(
            [(one, None, "?"), *(([one, one] if t.compare else one, n, "?") for n, t in tasks)]
        )

    async def describe(self) -> dict[str, Any]:
        """What the gateway needs to know: the model, its tasks, its frame rate and how much it reads."""
        return self.about

    async def tokenize(self, angles_rad: np.ndarray, joint_mask: np.ndarray) -> tuple[Movement, bool]:
        """(T, 34) radians at the tokenizer's rate, and which joints were recorded -> motion tokens, those of its
        mirror image too where the model reads them, and whether they lose so much of the movement that it must be
        unlike those that were learned from."""
        return await asyncio.to_thread(self._tokenized, angles_rad, joint_mask)

    def _tokenized(self, angles_rad: np.ndarray, joint_mask: np.ndarray) -> tuple[Movement, bool]:
        from biomechgpt.tokenizer import rmse_deg

        (movement,) = self.answerer.read(self.motion, [angles_rad], [joint_mask])
        (given,) = self.motion.decode([np.asarray(as_it_is(movement)[0])])
        lost = rmse_deg(angles_rad, given, joint_mask & self.motion.seen)
        return movement, self.answerer.calibration.strange(np.inf, lost)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.01)
    async def answer(self, asked: list[tuple[Any, str | None, Any]]) -> list[Any]:
        """(motion, task or None, question) -> `language.answer.Weighed`; as `Answerer.answer` takes them."""
        return await asyncio.to_thread(self.answerer.answer, asked)

    async def explain(
        self, angles_rad: np.ndarray, joint_mask: np.ndarray, asked: list[tuple[str, str]]
    ) -> list[Any]:
        """As `language.explain.explain`."""
        from biomechgpt.answering.explain import explain

        return await asyncio.to_thread(explain, self.answerer, self.motion, angles_rad, joint_mask, asked)

    async def measure(self, tokens: list[int]) -> dict[str, float | None]:
        """Facts of the movement that motion tokens give back."""
        return await asyncio.to_thread(self._measured, tokens)

    def _measured(self, tokens: list[int]) -> dict[str, float | None]:
        step = self.motion.tokens_per_step
        angles = self.motion.decode([np.asarray(tokens[: len(tokens) // step * step])])[0]
        rate_hz = self.motion.frame_rate_hz
        return parameters.measure(angles, gait.walked(angles, rate_hz), rate_hz)

    async def recognise(self, question: str, among: list[str]) -> str | None:
        """As `dialogue.recognition.Recognizer.task`."""
        return await asyncio.to_thread(self.recognizer.task, question, among)

    async def lengths(self, questions: list[str]) -> list[int]:
        """Tokens of each question, as the language model reads it."""
        return [len(self.answerer.encoder.question(question)) for question in questions]
