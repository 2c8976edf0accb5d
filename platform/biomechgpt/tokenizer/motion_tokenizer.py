"""Movement to motion tokens and back, with a trained tokenizer.

Long sequences go through the network in windows. Each window overlaps its neighbours by the network's receptive
field, so memory is bounded, and the tokens are those of the whole sequence.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, validate
from biomechgpt.motion.skeleton import N_JOINTS, NAMES
from biomechgpt.tokenizer.layout import PostureCodes, TokenLayout
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.settings import LossSettings, NetworkSettings


class _Window(NamedTuple):
    """Part of a sequence that goes through the network at once. Steps are token steps of the sequence."""

    sequence: int
    """Number of the sequence."""
    own: slice
    """Steps whose result is kept."""
    read: slice
    """Steps that the network reads: its own, and those within its receptive field."""

    @property
    def n_read(self) -> int:
        return int(self.read.stop - self.read.start)

    @property
    def first_own(self) -> int:
        """Where its own steps begin among those it reads."""
        return int(self.own.start - self.read.start)


class MotionTokenizer:
    """A trained tokenizer. Sequences are batched by length, and each gets the tokens that it gets alone.

    A token step covers `downsampling` frames and has `tokens_per_step` tokens, one after another. With
    `settings.posture_bin_deg`, `n_posture` posture tokens come before all steps. Each token is a row number of
    `codebook`.
    """

    def __init__(
        self, network: MotionVQVAE, frame_rate_hz: float, fingerprint: str = "", window: int = 2048
    ) -> None:
        """fingerprint: of the tokenizer's artifact. window: frames that go through the network at once, without the
        overlap."""
        self.network, self.frame_rate_hz = network.eval(), frame_rate_hz
        self.fingerprint, self.window = fingerprint, window
        self.device = network.mean.device
        settings = network.settings
        bin_deg, codes = settings.posture_bin_deg, sum(network.quantizer.sizes)
        self.posture = None if bin_deg is None else PostureCodes(bin_deg, settings.seen, codes)

    @classmethod
    def load(cls, uri: str) -> "MotionTokenizer":
        """Load a tokenizer artifact, or the copy in a model's folder.

        Raises InputError if it is for another skeleton, or if its settings are not valid.
        """
        folder = artifact.local_copy(uri)
        info = storage.read_json(str(folder / "tokenizer.json"))
        if info["joints"] != list(NAMES):
            raise InputError(f"{uri}: tokenizer.json: joints: expected {list(NAMES)}, found {info['joints']}")
        settings = validate(NetworkSettings, info["network"], f"{uri}/tokenizer.json: network")
        network = MotionVQVAE(settings, LossSettings())
        network.load_state_dict(load_file(str(folder / "model.safetensors")))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(network.to(device), info["frame_rate_hz"], artifact.load(str(folder)).fingerprint)

    def save(self, uri: str) -> None:
        """Write the weights (safetensors) and what else `load` needs (JSON) into an artifact's folder."""
        info = {
            "network": self.network.settings.model_dump(mode="json"),
            "joints": list(NAMES),
            "frame_rate_hz": self.frame_rate_hz,
        }
        weights = {name: value.contiguous().cpu() for name, value in self.network.state_dict().items()}
        storage.write_bytes(storage.join(uri, "model.safetensors"), save(weights))
        storage.write_json(storage.join(uri, "tokenizer.json"), info)

    @property
    def codebook(self) -> np.ndarray:
        """(vocabulary, code_dim) float32, one row per token: motion tokens, then posture tokens.

        A step's vector is the sum of its tokens' rows. No network reads the rows of posture tokens: they only say
        which are alike.
        """
        codes = self.network.quantizer.codebook.detach().cpu().numpy()
        if self.posture is None:
            return codes
        return np.concatenate([codes, self.posture.vectors(codes.shape[1]) * codes.std()])

    @property
    def seen(self) -> np.ndarray:
        """(34,) bool: the joints that it encodes."""
        return self.network.seen.cpu().numpy().astype(bool)

    @property
    def downsampling(self) -> int:
        """Frames per token step."""
        return self.network.settings.downsampling

    @property
    def tokens_per_step(self) -> int:
        return self.network.tokens_per_step

    @property
    def n_posture(self) -> int:
        """Posture tokens before a movement's motion tokens."""
        return 0 if self.posture is None else self.posture.n_tokens

    @property
    def layout(self) -> TokenLayout:
        """Which tokens can stand where in a movement."""
        posture = 0 if self.posture is None else self.posture.size
        return TokenLayout(self.n_posture, posture, tuple(self.network.quantizer.sizes))

    @property
    def tokens_per_s(self) -> float:
        """Motion tokens of a second."""
        return self.frame_rate_hz / self.downsampling * self.tokens_per_step

    @property
    def bits_per_s(self) -> float:
        """Bits per second that the motion tokens take, if all codes are equally frequent."""
        return self.frame_rate_hz / self.downsampling * float(np.log2(self.network.quantizer.sizes).sum())

    def encode(
        self,
        movements: Sequence[np.ndarray],
        masks: Sequence[np.ndarray] | np.ndarray | None = None,
        batch_size: int = 32,
    ) -> list[np.ndarray]:
        """Tokens of movements, (n_posture + ceil(T / downsampling) * tokens_per_step,) int32 each.

        movements: (T, 34) radians each, at `frame_rate_hz`. The last frame is repeated to fill the last step.
        masks: (34,) bool each, True for a joint that was recorded; None: all were.
        batch_size: windows that go through the network at once.
        """
        downsampling, per_step = self.downsampling, self.tokens_per_step
        postures = [np.empty(0, np.int32)] * len(movements)
        if self.posture is not None:
            means = [movement.mean(axis=0) if len(movement) else np.zeros(N_JOINTS) for movement in movements]
            movements = [movement - mean for movement, mean in zip(movements, means, strict=True)]
            everything = [np.ones(N_JOINTS)] * len(movements)
            pairs = zip(means, everything if masks is None else masks, strict=True)
            postures = [self.posture.encode(mean, mask) for mean, mask in pairs]
        steps = [-(-len(movement) // downsampling) for movement in movements]
        result = [np.empty(n * per_step, np.int32) for n in steps]
        for windows in self._batches(steps, batch_size):
            longest = max(window.n_read for window in windows) * downsampling
            angles = np.zeros((len(windows), longest, N_JOINTS), np.float32)
            frames = np.zeros(angles.shape[:2], np.float32)
            joints = np.ones((len(windows), N_JOINTS), np.float32)
            for row, (i, _, read) in enumerate(windows):
                numbers = np.arange(read.start * downsampling, read.stop * downsampling)
                numbers = np.minimum(numbers, len(movements[i]) - 1)
                angles[row, : len(numbers)] = movements[i][numbers]
                frames[row, : len(numbers)] = 1
                if masks is not None:
                    joints[row] = masks[i]
            with _full_precision():
                encoded = self.network.encode(*map(self._tensor, (angles, frames, joints)))
            tokens = encoded.cpu().numpy()
            for row, window in enumerate(windows):
                first = window.first_own * per_step
                target = result[window.sequence][window.own.start * per_step : window.own.stop * per_step]
                target[:] = tokens[row, first : first + len(target)]
        return [np.concatenate(pair) for pair in zip(postures, result, strict=True)]

    def decode(self, tokens: Sequence[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
        """Movements of tokens, (n * downsampling, 34) float32 radians each.

        tokens: (n_posture + n * tokens_per_step,) each.
        batch_size: windows that go through the network at once.
        Raises InputError for a number that is not a token of its place, and for an incomplete step.
        """
        downsampling, per_step, n_posture = self.downsampling, self.tokens_per_step, self.n_posture
        movements = [np.asarray(sequence) for sequence in tokens]
        postures, tokens = ([m[:n_posture] for m in movements], [m[n_posture:] for m in movements])
        for movement, sequence in zip(movements, tokens, strict=True):
            self.layout.check(movement)
            if len(sequence) % per_step:
                raise InputError(
                    f"tokens: expected a multiple of {per_step} motion tokens, found {len(sequence)}"
                )
        steps = [len(sequence) // per_step for sequence in tokens]
        result = [np.empty((n * downsampling, N_JOINTS), np.float32) for n in steps]
        for windows in self._batches(steps, batch_size):
            longest = max(window.n_read for window in windows)
            batch = np.zeros((len(windows), longest * per_step), np.int64)
            valid = np.zeros((len(windows), longest), np.float32)
            for row, window in enumerate(windows):
                read = slice(window.read.start * per_step, window.read.stop * per_step)
                batch[row, : window.n_read * per_step] = tokens[window.sequence][read]
                valid[row, : window.n_read] = 1
            with _full_precision():
                decoded = self.network.decode(self._tensor(batch), self._tensor(valid))
            angles = decoded.cpu().numpy()
            for row, window in enumerate(windows):
                first = window.first_own * downsampling
                target = result[window.sequence][
                    window.own.start * downsampling : window.own.stop * downsampling
                ]
                target[:] = angles[row, first : first + len(target)]
        if self.posture is not None:
            for movement, posture in zip(result, postures, strict=True):
                movement += self.posture.decode(posture).astype(np.float32)
        return result

    def _batches(self, steps: Sequence[int], batch_size: int) -> list[list[_Window]]:
        """All windows of sequences with so many steps, in batches of similar length.

        Windows advance by their own length (the stride), and read `context` steps more on either side.
        """
        context, size = self.network.settings.context, max(self.window // self.downsampling, 1)
        windows = [
            _Window(
                i,
                slice(first, min(first + size, n)),
                slice(max(first - context, 0), min(first + size + context, n)),
            )
            for i, n in enumerate(steps)
            for first in range(0, n, size)
        ]
        windows.sort(key=lambda window: window.n_read)
        return [windows[at : at + batch_size] for at in range(0, len(windows), batch_size)]

    def reconstruction_errors(
        self, movements: Sequence[np.ndarray], tokens: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> list[float]:
        """`rmse_deg` of each movement, over the recorded joints that this tokenizer encodes.

        movements: (T, 34) radians each. tokens: those of each movement. masks: (34,) bool, the recorded joints.
        """
        return [
            rmse_deg(movement, reconstruction, mask & self.seen)
            for movement, reconstruction, mask in zip(movements, self.decode(tokens), masks, strict=True)
        ]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Convolutions in fp32. A GPU would round their factors (TF32), and a movement would get other tokens there."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def rmse_deg(movement: np.ndarray, reconstruction: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square error in degrees between a movement and its reconstruction.

    movement: (T, 34) radians.
    reconstruction: (T' >= T, 34) radians.
    mask: (34,) bool, the joints that count.
    """
    difference = (movement - reconstruction[: len(movement)])[:, mask]
    return float(np.degrees(np.sqrt(np.mean(difference**2)))) if difference.size else 0.0


def require_same_tokenizer(*artifacts: Artifact) -> None:
    """Raise InputError, with all fingerprints, if artifacts belong to different tokenizers.

    artifacts: tokenizers, tokens, base models, and models.
    """
    fingerprints = {
        one.uri: one.fingerprint
        if one.kind == "tokenizer"
        else one.manifest["inputs"]["tokenizer"]["fingerprint"]
        for one in artifacts
    }
    if len(set(fingerprints.values())) > 1:
        lines = "".join(f"\n  {uri}: tokenizer {fingerprint}" for uri, fingerprint in fingerprints.items())
        raise InputError(f"tokens and models: expected one tokenizer, found{lines}")
