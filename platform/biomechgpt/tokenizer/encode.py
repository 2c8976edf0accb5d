"""Movement to motion tokens and back, one trial or a whole cohort through Ray Data."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from safetensors.torch import load_file

from biomechgpt import artifact, cluster, storage
from biomechgpt.artifact import Artifact
from biomechgpt.settings import Settings
from biomechgpt.skeleton import N_JOINTS, TRACKED
from biomechgpt.tokenizer.model import LossSettings, MotionVQVAE, NetworkSettings

VERSION = 1


class MotionTokenizer:
    """A trained tokenizer. Sequences are batched by length; each gets the codes it would get alone."""

    def __init__(self, network: MotionVQVAE, frame_rate_hz: float) -> None:
        self.network, self.frame_rate_hz = network.eval(), frame_rate_hz
        self.device = network.mean.device

    @classmethod
    def load(cls, uri: str) -> "MotionTokenizer":
        """From a tokenizer artifact, or a bundle's copy of one."""
        folder = storage.local_copy(uri)
        info = storage.read_json(str(folder / "tokenizer.json"))
        network = MotionVQVAE(NetworkSettings(**info["network"]), LossSettings())
        network.load_state_dict(load_file(str(folder / "model.safetensors")))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(network.to(device), info["frame_rate_hz"])

    @property
    def codebook(self) -> np.ndarray:
        """(codes, code_dim) float32."""
        return self.network.quantizer.codebook.cpu().numpy()

    @property
    def downsampling(self) -> int:
        return self.network.settings.downsampling

    def encode(self, movements: Sequence[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
        """Each (T, 34) radians at `frame_rate_hz` -> (ceil(T / downsampling),) int32; the last frame
        is repeated to fill the last token. The eight untracked joints are ignored."""
        result: list[np.ndarray] = [np.empty(0, np.int32)] * len(movements)
        step = self.downsampling
        for some in _alike([len(m) for m in movements], batch_size):
            lengths = [-(-len(movements[i]) // step) * step for i in some]
            x = np.zeros((len(some), max(lengths), N_JOINTS), np.float32)
            frames = np.zeros(x.shape[:2], np.float32)
            for row, (i, length) in enumerate(zip(some, lengths, strict=True)):
                n = len(movements[i])
                x[row, :n] = movements[i] * TRACKED
                x[row, n:length] = x[row, n - 1]
                frames[row, :length] = 1
            codes = self.network.encode(self._tensor(x), self._tensor(frames)).cpu().numpy()
            for row, (i, length) in enumerate(zip(some, lengths, strict=True)):
                result[i] = codes[row, : length // step].astype(np.int32)
        return result

    def decode(self, tokens: Sequence[np.ndarray], batch_size: int = 32) -> list[np.ndarray]:
        """Each (n,) codes -> (n * downsampling, 34) float32 radians."""
        result: list[np.ndarray] = [np.empty((0, N_JOINTS), np.float32)] * len(tokens)
        for some in _alike([len(t) for t in tokens], batch_size):
            length = max(len(tokens[i]) for i in some)
            codes, valid = np.zeros((len(some), length), np.int64), np.zeros((len(some), length), np.float32)
            for row, i in enumerate(some):
                codes[row, : len(tokens[i])] = tokens[i]
                valid[row, : len(tokens[i])] = 1
            angles = self.network.decode(self._tensor(codes), self._tensor(valid)).cpu().numpy() * TRACKED
            for row, i in enumerate(some):
                result[i] = angles[row, : len(tokens[i]) * self.downsampling].astype(np.float32)
        return result

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


def _alike(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Numbers of sequences in batches of alike length; empty sequences are left out."""
    order = [i for i in np.argsort(lengths, kind="stable").tolist() if lengths[i] > 0]
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


class TokensSettings(Settings):
    """Where a cohort is tokenized; none of it changes the tokens."""

    batch_size: int = Field(64, ge=1, exclude=True)
    workers: int = Field(1, ge=1, exclude=True)


class _EncodeBatch:
    """Ray Data's actor: loads the tokenizer once and tokenizes blocks of trials."""

    def __init__(self, uri: str) -> None:
        import ray

        torch.set_num_threads(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        self.tokenizer = MotionTokenizer.load(uri)
        self.done, self.said = 0, time.time()

    def __call__(self, block: pa.Table) -> pa.Table:
        movements = [row.values.to_numpy().reshape(-1, N_JOINTS) for row in block["angles_rad"]]
        tokens = pa.array(self.tokenizer.encode(movements), pa.list_(pa.int32()))
        self.done += len(movements)
        if time.time() - self.said > 10:
            self.said = time.time()
            print(f"tokens: {self.done} trials by this worker", flush=True)
        return block.drop_columns(["angles_rad"]).append_column("tokens", tokens)


def make_tokens(cohort: Artifact, tokenizer: Artifact, settings: TokensSettings, root: str) -> Artifact:
    """The tokens artifact: `tokens/*.parquet`, a row a trial, and `tokens.json`."""

    def build(uri: str) -> dict[str, Any]:
        import ray

        cluster.connect()
        info = cohort.read_json("cohort.json")
        columns = ["trial", "participant", "split", "data", "n_frames", "angles_rad", *info["annotations"]]
        storage.remove(storage.join(uri, "tokens"))  # of a run that died half-way
        source, folder = storage.arrow_filesystem(cohort.path("trials"))
        target, path = storage.arrow_filesystem(storage.join(uri, "tokens"))
        gpu: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) else {}
        (
            ray.data.read_parquet(folder, filesystem=source, columns=columns)
            .map_batches(
                _EncodeBatch,
                fn_constructor_args=(tokenizer.uri,),
                batch_size=settings.batch_size,
                batch_format="pyarrow",
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=settings.workers),
                **gpu,
            )
            .write_parquet(path, filesystem=target)
        )
        loaded = MotionTokenizer.load(tokenizer.uri)
        table = _read(uri)
        storage.write_json(
            storage.join(uri, "tokens.json"),
            {
                "tokenizer": tokenizer.fingerprint,
                "codes": len(loaded.codebook),
                "annotations": info["annotations"],
                "tokens_per_s": loaded.frame_rate_hz / loaded.downsampling,
            },
        )
        lengths = pa.compute.list_value_length(table["tokens"])
        return {"trials": table.num_rows, "tokens": pa.compute.sum(lengths).as_py()}

    return artifact.make("tokens", VERSION, settings, {"cohort": cohort, "tokenizer": tokenizer}, build, root)


def _read(uri: str) -> pa.Table:
    fs, path = storage.arrow_filesystem(storage.join(uri, "tokens"))
    # By trial: which shard a trial went to depends on how many workers there were.
    return pq.read_table(path, filesystem=fs, partitioning=None).sort_by("trial")


def read_tokens(tokens: Artifact) -> pa.Table:
    """All trials' tokens and annotations, ordered by trial."""
    return _read(tokens.uri)
