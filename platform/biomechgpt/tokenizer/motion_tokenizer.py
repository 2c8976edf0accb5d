"""Movement to motion tokens and back, one trial or a whole cohort through Ray Data.

Long sequences go through the network in windows, each with as much around it as the network looks at: memory is
bounded, and the tokens are those of the whole.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import torch
from pydantic import Field
from safetensors.torch import load_file, save

from biomechgpt.cohort.shards import Cohort, Shard
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings, validate
from biomechgpt.motion.skeleton import MIRROR_ORDER, N_JOINTS, NAMES, mirror
from biomechgpt.tokenizer.network import LossSettings, MotionVQVAE, NetworkSettings

VERSION = 4


class MotionTokenizer:
    """A trained tokenizer. Sequences are batched by length; each gets the tokens it would get alone.

    A step of `downsampling` frames is `tokens_per_step` tokens, one after another; each token names a row of
    `codebook`. fingerprint: of the tokenizer's artifact. window: frames that go through the network at once, beside
    their context.
    """

    def __init__(
        self, network: MotionVQVAE, frame_rate_hz: float, fingerprint: str = "", window: int = 2048
    ) -> None:
        self.network, self.frame_rate_hz = network.eval(), frame_rate_hz
        self.fingerprint, self.window = fingerprint, window
        self.device = network.mean.device

    @classmethod
    def load(cls, uri: str) -> "MotionTokenizer":
        """From a tokenizer artifact, or a bundle's copy of one. InputError for one of another skeleton or form."""
        folder = storage.local_copy(uri)
        info = storage.read_json(str(folder / "tokenizer.json"))
        if info["joints"] != list(NAMES):
            raise InputError(f"{uri}: tokenizer.json: joints: expected {list(NAMES)}, found {info['joints']}")
        settings = validate(NetworkSettings, info["network"], f"{uri}/tokenizer.json: network")
        network = MotionVQVAE(settings, LossSettings())
        network.load_state_dict(load_file(str(folder / "model.safetensors")))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # A GPU would round what convolutions multiply: a movement is the same tokens wherever it is encoded.
        torch.backends.cudnn.allow_tf32 = False
        return cls(network.to(device), info["frame_rate_hz"], artifact.load(str(folder)).fingerprint)

    def save(self, uri: str) -> None:
        """Its weights (safetensors) and what else `load` needs (JSON), into an artifact's folder."""
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
        """(vocabulary, code_dim) float32, a row a token; what a step stands for is the sum of its rows."""
        return self.network.quantizer.codebook.detach().cpu().numpy()

    @property
    def seen(self) -> np.ndarray:
        """(34,) bool: the joints that it looks at."""
        return self.network.seen.cpu().numpy().astype(bool)

    @property
    def downsampling(self) -> int:
        return self.network.settings.downsampling

    @property
    def tokens_per_step(self) -> int:
        return self.network.tokens_per_step

    @property
    def tokens_per_s(self) -> float:
        return self.frame_rate_hz / self.downsampling * self.tokens_per_step

    @property
    def bits_per_s(self) -> float:
        return self.frame_rate_hz / self.downsampling * float(np.log2(self.network.quantizer.sizes).sum())

    def encode(
        self,
        movements: Sequence[np.ndarray],
        masks: Sequence[np.ndarray] | np.ndarray | None = None,
        batch_size: int = 32,
    ) -> list[np.ndarray]:
        """Each (T, 34) radians at `frame_rate_hz` -> (ceil(T / downsampling) * tokens_per_step,) int32; the last
        frame is repeated to fill the last step.

        masks: (34,) bool each, True where a joint was recorded; by default all were.
        """
        down, per_step = self.downsampling, self.tokens_per_step
        steps = [-(-len(movement) // down) for movement in movements]
        result = [np.empty(n * per_step, np.int32) for n in steps]
        for some in self._batches(steps, batch_size):
            longest = max(seen.stop - seen.start for _, _, seen in some) * down
            angles = np.zeros((len(some), longest, N_JOINTS), np.float32)
            frames = np.zeros(angles.shape[:2], np.float32)
            joints = np.ones((len(some), N_JOINTS), np.float32)
            for row, (i, _, seen) in enumerate(some):
                at = np.minimum(np.arange(seen.start * down, seen.stop * down), len(movements[i]) - 1)
                angles[row, : len(at)] = movements[i][at]
                frames[row, : len(at)] = 1
                if masks is not None:
                    joints[row] = masks[i]
            tokens = self.network.encode(*map(self._tensor, (angles, frames, joints))).cpu().numpy()
            for row, (i, own, seen) in enumerate(some):
                at = (own.start - seen.start) * per_step
                here = slice(own.start * per_step, own.stop * per_step)
                result[i][here] = tokens[row, at : at + len(result[i][here])]
        return result

    def decode(self, tokens: Sequence[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
        """Each (n * tokens_per_step,) tokens -> (n * downsampling, 34) float32 radians.

        Raises InputError for a number that is no token, and for a part of a step.
        """
        down, per_step, size = self.downsampling, self.tokens_per_step, sum(self.network.quantizer.sizes)
        tokens = [np.asarray(movement) for movement in tokens]
        for movement in tokens:
            wrong = movement[(movement < 0) | (movement >= size)]
            if len(wrong):
                raise InputError(f"tokens: expected 0 to {size - 1}, found {wrong[0]}")
            if len(movement) % per_step:
                raise InputError(f"tokens: expected a multiple of {per_step}, found {len(movement)}")
        steps = [len(movement) // per_step for movement in tokens]
        result = [np.empty((n * down, N_JOINTS), np.float32) for n in steps]
        for some in self._batches(steps, batch_size):
            longest = max(seen.stop - seen.start for _, _, seen in some)
            codes = np.zeros((len(some), longest * per_step), np.int64)
            valid = np.zeros((len(some), longest), np.float32)
            for row, (i, _, seen) in enumerate(some):
                n = seen.stop - seen.start
                codes[row, : n * per_step] = tokens[i][seen.start * per_step : seen.stop * per_step]
                valid[row, :n] = 1
            angles = self.network.decode(self._tensor(codes), self._tensor(valid)).cpu().numpy()
            for row, (i, own, seen) in enumerate(some):
                at = (own.start - seen.start) * down
                here = slice(own.start * down, own.stop * down)
                result[i][here] = angles[row, at : at + len(result[i][here])]
        return result

    def _batches(self, steps: Sequence[int], batch_size: int) -> list[list[tuple[int, slice, slice]]]:
        """(sequence, its steps of a window, these with their context) in batches of alike length."""
        context, size = self.network.settings.context, max(self.window // self.downsampling, 1)
        windows = [
            (i, slice(at, min(at + size, n)), slice(max(at - context, 0), min(at + size + context, n)))
            for i, n in enumerate(steps)
            for at in range(0, n, size)
        ]
        windows.sort(key=lambda window: window[2].stop - window[2].start)
        return [windows[at : at + batch_size] for at in range(0, len(windows), batch_size)]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


def rmse_deg(movement: np.ndarray, given: np.ndarray, mask: np.ndarray) -> float:
    """How far what tokens give back (T' >= T, 34) is from a movement (T, 34), over the joints of `mask` (34,)."""
    apart = (movement - given[: len(movement)])[:, mask]
    return float(np.degrees(np.sqrt(np.mean(apart**2)))) if apart.size else 0.0


def require_same_tokenizer(*made: Artifact) -> None:
    """Raise InputError, which names both fingerprints, where tokens meet a model of another tokenizer.

    made: tokenizers, tokens, language bases and bundles.
    """
    marks = {
        one.uri: one.fingerprint
        if one.kind == "tokenizer"
        else one.manifest["inputs"]["tokenizer"]["fingerprint"]
        for one in made
    }
    if len(set(marks.values())) > 1:
        found = "".join(f"\n  {uri}: tokenizer {mark}" for uri, mark in marks.items())
        raise InputError(f"tokens and models: expected one tokenizer, found{found}")


class TokensSettings(Settings):
    """views: tokenizations of each training trial, beside its own those of its mirror image and of frames that are
    left out at its beginning, fewer than a step of tokens: the same movement in other tokens, so that fewer can be
    learned by heart. Of more than one held-out trials have their mirror image too, which answers can be about as
    well. The rest says where a cohort is tokenized and changes nothing.
    """

    views: int = Field(1, ge=1, le=64)
    batch_size: int = Field(64, ge=1, exclude=True)
    workers: int = Field(1, ge=1, exclude=True)


ERROR = "rmse_deg"
"""Column of held-out trials: what their tokens lose (`rmse_deg`)."""
MOVEMENT = ("angles_rad", "joint_mask")
"""Columns that a trial's tokens take the place of."""


class _EncodeShard:
    """Ray Data's actor: loads the tokenizer once, and writes the tokens of a cohort's shard under its name."""

    def __init__(self, tokenizer: str, target: str, columns: list[str], batch_size: int, views: int) -> None:
        import ray

        torch.set_num_threads(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        self.tokenizer = MotionTokenizer.load(tokenizer)
        self.target, self.columns, self.batch_size = target, columns, batch_size
        self.views = views
        self.done, self.said = 0, time.time()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(item["shard"])
        blocks = shard.batches(self.batch_size, self.columns)
        table = pa.concat_tables([self._tokens(pa.Table.from_batches([block])) for block in blocks])
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        storage.write_bytes(storage.join(self.target, shard.name), buffer.getvalue().to_pybytes())
        lengths = pa.compute.list_value_length(table["tokens"])
        return {"trials": table.num_rows, "tokens": pa.compute.sum(lengths).as_py()}

    def _tokens(self, block: pa.Table) -> pa.Table:
        movements = [row.values.to_numpy().reshape(-1, N_JOINTS) for row in block["angles_rad"]]
        masks = np.array(block["joint_mask"].to_pylist(), dtype=bool)
        tokens = pa.array(self.tokenizer.encode(movements, masks), pa.list_(pa.int32()))
        made = block.drop_columns(list(MOVEMENT)).append_column("tokens", tokens)
        made = made.append_column(ERROR, self._errors(movements, masks, tokens, block["split"].to_pylist()))
        if self.views > 1:
            made = made.append_column("views", self._others(movements, masks, block["split"].to_pylist()))
        self.done += len(movements)
        if time.time() - self.said > 10:
            self.said = time.time()
            print(f"tokens: {self.done} trials by this worker", flush=True)
        return made

    def _errors(
        self, movements: list[np.ndarray], masks: np.ndarray, tokens: pa.Array, splits: list[str]
    ) -> pa.Array:
        """Held-out trials' errors; of training trials null, which say nothing."""
        held_out = [i for i, split in enumerate(splits) if split != "train"]
        errors: list[float | None] = [None] * len(movements)
        given = self.tokenizer.decode([tokens[i].values.to_numpy() for i in held_out])
        for i, angles in zip(held_out, given, strict=True):
            errors[i] = rmse_deg(movements[i], angles, masks[i] & self.tokenizer.seen)
        return pa.array(errors, pa.float64())

    def _others(self, movements: list[np.ndarray], masks: np.ndarray, splits: list[str]) -> pa.Array:
        """The views of training trials beyond their own tokens; of other trials the mirror image."""
        others: list[list[np.ndarray]] = [[] for _ in movements]
        for view in range(1, self.views):
            wanted = [i for i, split in enumerate(splits) if split == "train" or view == MIRROR_IMAGE]
            seen = [view_of(movements[i], masks[i], view, self.views, self.tokenizer) for i in wanted]
            encoded = self.tokenizer.encode([angles for angles, _ in seen], [mask for _, mask in seen])
            for i, tokens in zip(wanted, encoded, strict=True):
                others[i].append(tokens)
        return pa.array(others, pa.list_(pa.list_(pa.int32())))


def view_of(
    angles: np.ndarray, mask: np.ndarray, view: int, views: int, tokenizer: MotionTokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """A movement (T, 34) and its mask (34,) as one of `views`: every second is mirrored, later ones begin later."""
    left_out = (view // 2) * tokenizer.downsampling // -(-views // 2)
    angles = angles[min(left_out, len(angles) - 1) :]
    if is_mirrored(view):
        return mirrored(angles, mask)
    return angles, mask


def mirrored(angles: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mirror image of a movement (T, 34) and its mask (34,), as training reads it."""
    return mirror(angles).astype(np.float32), mask[MIRROR_ORDER]


MIRROR_IMAGE = 1
"""The view that is the whole movement's mirror image."""


def is_mirrored(view: int) -> bool:
    """Whether a view (0 is the movement as it is) shows a mirror image."""
    return view % 2 == 1


def make_tokens(cohort: Artifact, tokenizer: Artifact, settings: TokensSettings, root: str) -> Artifact:
    """The tokens artifact: `tokens/*.parquet`, a row a trial in the cohort's shards, and `tokens.json`."""

    def build(uri: str) -> dict[str, Any]:
        import ray

        cluster.connect()
        opened = Cohort(cohort)
        annotations = opened.info.annotations
        columns = ["trial", "participant", "split", "provenance", "n_frames", *MOVEMENT, *annotations]
        target = storage.join(uri, "tokens")
        shards = [{"shard": shard.uri} for shard in opened.shards]
        gpu: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) else {}
        # Actors read and write themselves: tasks for that would wait for a core that the actors hold.
        written = (
            ray.data.from_items(shards, override_num_blocks=min(len(shards), 1000))
            .map(
                _EncodeShard,  # type: ignore[arg-type]  # typed as for functions
                fn_constructor_args=(
                    tokenizer.uri,
                    target,
                    columns,
                    settings.batch_size,
                    settings.views,
                ),
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=min(settings.workers, len(shards))),
                **gpu,
            )
            .take_all()
        )
        loaded = MotionTokenizer.load(tokenizer.uri)
        storage.write_json(
            storage.join(uri, "tokens.json"),
            {
                "tokenizer": tokenizer.fingerprint,
                "codes": len(loaded.codebook),
                "tokens_per_step": loaded.tokens_per_step,
                "tokens_per_s": loaded.tokens_per_s,
                "annotations": annotations,
            },
        )
        return {name: sum(shard[name] for shard in written) for name in ("trials", "tokens")}

    return artifact.make("tokens", VERSION, settings, {"cohort": cohort, "tokenizer": tokenizer}, build, root)


def read_tokens(tokens: Artifact) -> pa.Table:
    """All trials' tokens and annotations, ordered by trial."""
    trials = _dataset(tokens)
    return trials.to_table([name for name in trials.schema.names if name != "views"]).sort_by("trial")


def read_views(tokens: Artifact) -> dict[str, list[list[int]]]:
    """{training trial: its tokens, and the same movement in other tokens, where `views` made some}."""
    trials = _dataset(tokens)
    names = [name for name in ("trial", "tokens", "views") if name in trials.schema.names]
    table = trials.to_table(names, filter=pyarrow.dataset.field("split") == "train").sort_by("trial")
    own = table["tokens"].to_pylist()
    others = table["views"].to_pylist() if "views" in names else [[]] * len(own)
    rows = zip(table["trial"].to_pylist(), own, others, strict=True)
    return {trial: [tokens, *more] for trial, tokens, more in rows}


def read_images(tokens: Artifact, splits: Sequence[str]) -> dict[str, list[int]]:
    """{trial of these splits: tokens of its mirror image}. Raises InputError for tokens of a single view."""
    trials = _dataset(tokens)
    if "views" not in trials.schema.names:
        raise InputError(f"{tokens.uri}: expected tokens of at least 2 views, mirror images too, found 1")
    table = trials.to_table(
        ["trial", "views"], filter=pyarrow.dataset.field("split").isin(pa.array(splits, pa.string()))
    )
    images = pa.compute.list_element(table["views"], MIRROR_IMAGE - 1)
    return dict(zip(table["trial"].to_pylist(), images.to_pylist(), strict=True))


def _dataset(tokens: Artifact) -> pyarrow.dataset.Dataset:
    fs, path = storage.arrow_filesystem(tokens.path("tokens"))
    return pyarrow.dataset.dataset(path, filesystem=fs, format="parquet", partitioning=None)
