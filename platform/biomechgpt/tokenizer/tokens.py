"""Motion tokens of a cohort: encoded shard by shard with Ray Data, and read by `Tokens`.

An artifact of kind "tokens" has a `tokens/*.parquet` for each shard of the cohort, one row per trial, and a
`tokens.json` with the content of `TokensInfo`. It keeps no annotations: these are in the cohort, and
`Tokens.annotated_table` joins them. Only this module knows the layout on disk. It loads torch and Ray only where
tokens are made.
"""

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import scipy  # loads a part when it is used: scipy.signal and scipy.stats take a second

from biomechgpt.cohort.shards import Cohort, Shard
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import SECONDS_BETWEEN_LINES, log_to_stdout, logger
from biomechgpt.core.settings import InputError, Settings, validate
from biomechgpt.motion.features import kinematic_features
from biomechgpt.motion.skeleton import MIRROR_ORDER, N_JOINTS, mirror
from biomechgpt.motion.statistics import measure_statistics
from biomechgpt.tokenizer.settings import TokensSettings

VERSION = 8
FOLDER, INFO = "tokens", "tokens.json"
"""Names in the artifact's folder: the folder of shards, and the content of `TokensInfo`."""
TRIAL_COLUMNS = ("trial", "participant", "split", "provenance", "n_frames")
"""Columns that are copied from the cohort."""
RECONSTRUCTION_ERROR = "rmse_deg"
"""Column with the reconstruction error of each trial in degrees. Training trials have lower ones."""
DURATION, STEPS, PHASES, LEGS_RECORDED = "duration_s", "steps", "phases", "legs_recorded"
FEATURES = "features"
"""Columns with the statistics of each trial's movement (`motion.statistics`) and its (102,) kinematic features."""
VIEWS = "views"
"""Column with the tokens of all views but the first, which is the trial itself."""
# What `Tokens.table` leaves out: `views` and `statistics` read it.
_NOT_IN_TABLE = (VIEWS, "provenance", DURATION, STEPS, PHASES, LEGS_RECORDED, FEATURES)


class TokensInfo(Settings):
    """Which tokens a tokens artifact has: the content of `tokens.json`."""

    tokenizer: str
    """Fingerprint of the tokenizer."""
    codebook_size: int
    """Number of different tokens."""
    tokens_per_step: int
    """Motion tokens of one step."""
    tokens_per_s: float
    """Motion tokens of one second."""
    n_posture: int = 0
    """Posture tokens before a movement's motion tokens."""
    layout: Literal["flat", "stacked"] = "flat"
    """Whether the motion tokens of a step share a position in prompts (stacked)."""


class Tokens:
    """Reads a tokens artifact."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @cached_property
    def info(self) -> TokensInfo:
        """Which tokens it has. Raises InputError if the file has another form."""
        return validate(TokensInfo, self.artifact.read_json(INFO), self.artifact.path(INFO))

    def table(self) -> pa.Table:
        """All trials with their tokens and reconstruction errors, ordered by trial."""
        names = [name for name in self._dataset.schema.names if name not in _NOT_IN_TABLE]
        return self._rows(names).sort_by("trial")

    def annotated_table(self) -> pa.Table:
        """`table`, with the annotations that the cohort has of each trial. Raises InputError without the cohort."""
        cohort = Cohort(self.artifact.input("cohort"))
        annotations = cohort.table(["trial", *cohort.info.annotations]).sort_by("trial")
        table = self.table()
        if not annotations["trial"].equals(table["trial"]):
            raise InputError(f"{self.artifact.uri}: expected the trials of {cohort.artifact.uri}")
        for name in cohort.info.annotations:
            table = table.append_column(name, annotations[name])
        return table

    def statistics(self) -> pa.Table:
        """The statistics of all trials' movements, ordered by trial: columns trial, participant, split, those of
        `motion.statistics.MovementStatistics` that need no reference, and FEATURES."""
        names = [
            "trial",
            "participant",
            "split",
            "provenance",
            DURATION,
            STEPS,
            PHASES,
            LEGS_RECORDED,
            RECONSTRUCTION_ERROR,
            FEATURES,
        ]
        return self._rows(names).sort_by("trial")

    def codes(self) -> dict[str, np.ndarray]:
        """{trial: its tokens}, ordered by trial."""
        table = self._rows(["trial", "tokens"]).sort_by("trial")
        rows = zip(table["trial"].to_pylist(), table["tokens"], strict=True)
        return {trial: tokens.values.to_numpy() for trial, tokens in rows}

    @property
    def n_views(self) -> int:
        """Views of each trial, its own tokens included."""
        return int(self.artifact.manifest["settings"].get("views", 1))

    def views(self, splits: Sequence[str], n: int | None = None) -> dict[str, list[list[int]]]:
        """{trial of these splits: the tokens of its first n views, its own before others}, ordered by trial.

        n: None: all views. Raises InputError if there are fewer.
        """
        n = n or self.n_views
        if n > self.n_views:
            raise InputError(f"{self.artifact.uri}: expected {n} views, found {self.n_views} (tokens.views)")
        names = ["trial", "tokens", *([VIEWS] if n > 1 else [])]
        in_splits = pc.field("split").isin(pa.array(splits, pa.string()))
        table = self._rows(names, filter=in_splits).sort_by("trial")
        own = table["tokens"].to_pylist()
        others = table[VIEWS].to_pylist() if n > 1 else [[]] * len(own)
        rows = zip(table["trial"].to_pylist(), own, others, strict=True)
        return {trial: [tokens, *more[: n - 1]] for trial, tokens, more in rows}

    def _rows(self, names: list[str], filter: pc.Expression | None = None) -> pa.Table:
        with storage.whole(self.artifact.path(FOLDER)):
            return self._dataset.to_table(names, filter=filter)

    @cached_property
    def _dataset(self) -> pyarrow.dataset.Dataset:
        filesystem, path = storage.arrow_filesystem(self.artifact.path(FOLDER))
        checked = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=checked)
        return pyarrow.dataset.dataset(path, filesystem=filesystem, format=parquet, partitioning=None)


def make_tokens(cohort: Artifact, tokenizer: Artifact, settings: TokensSettings, root: str) -> Artifact:
    """The tokens artifact of a cohort and a tokenizer, under `root`."""

    def build(uri: str) -> dict[str, Any]:
        import ray

        from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

        cluster.connect()
        shards = [{"shard": shard.uri} for shard in Cohort(cohort).shards]
        # The actors read and write the files themselves. Ray's read tasks would wait for a core that an actor has.
        written = (
            ray.data.from_items(shards, override_num_blocks=min(len(shards), 1000))
            .map(
                _EncodeShard,  # type: ignore[arg-type]  # typed as for functions
                fn_constructor_args=(tokenizer.uri, storage.join(uri, FOLDER), settings.batch_size,
                                     settings.views),
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=min(settings.workers, len(shards))),
                **cluster.gpu_of_actor(),
            )
            .take_all()
        )  # fmt: skip
        loaded = MotionTokenizer.load(tokenizer.uri)
        info = TokensInfo(
            tokenizer=tokenizer.fingerprint,
            codebook_size=len(loaded.codebook),
            tokens_per_step=loaded.tokens_per_step,
            tokens_per_s=loaded.tokens_per_s,
            n_posture=loaded.n_posture,
            layout=settings.layout,
        )
        storage.write_json(storage.join(uri, INFO), info.model_dump(mode="json"))
        return {name: sum(shard[name] for shard in written) for name in ("trials", "tokens")}

    inputs = {"cohort": cohort, "tokenizer": tokenizer}
    # A tokenizer may have been trained on other data too. The tokens are of this cohort's.
    return artifact.make("tokens", VERSION, settings, inputs, build, root, provenance=cohort.provenance)


class _EncodeShard:
    """Actor of Ray Data. It loads the tokenizer once, and writes each shard's tokens under the shard's name."""

    def __init__(self, tokenizer: str, target: str, batch_size: int, views: int) -> None:
        import ray
        import torch

        from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

        log_to_stdout()
        torch.set_num_threads(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        self.tokenizer = MotionTokenizer.load(tokenizer)
        self.target, self.batch_size, self.views = target, batch_size, views
        self.trials_done, self.last_line = 0, time.time()

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(item["shard"])
        blocks = shard.batches(self.batch_size, [*TRIAL_COLUMNS, "angles_rad", "joint_mask"])
        table = pa.concat_tables([self._encode(pa.Table.from_batches([block])) for block in blocks])
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, write_page_checksum=True)
        storage.write_bytes(storage.join(self.target, shard.name), buffer.getvalue().to_pybytes())
        lengths = pc.list_value_length(table["tokens"])
        return {"trials": table.num_rows, "tokens": pc.sum(lengths).as_py()}

    def _encode(self, block: pa.Table) -> pa.Table:
        movements = [row.values.to_numpy().reshape(-1, N_JOINTS) for row in block["angles_rad"]]
        masks = np.array(block["joint_mask"].to_pylist(), dtype=bool)
        splits = block["split"].to_pylist()
        tokens = pa.array(self.tokenizer.encode(movements, masks), pa.list_(pa.int32()))
        table = block.drop_columns(["angles_rad", "joint_mask"]).append_column("tokens", tokens)
        errors = self.tokenizer.reconstruction_errors(
            movements, [row.values.to_numpy() for row in tokens], list(masks)
        )
        table = table.append_column(RECONSTRUCTION_ERROR, pa.array(errors, pa.float64()))
        for name, column in self._statistics(movements, masks, splits).items():
            table = table.append_column(name, column)
        if self.views > 1:
            table = table.append_column(VIEWS, self._encode_views(movements, masks))
        self.trials_done += len(movements)
        if time.time() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.time()
            logger.info(f"tokens: {self.trials_done} trials by this worker")
        return table

    def _statistics(
        self, movements: list[np.ndarray], masks: np.ndarray, splits: list[str]
    ) -> dict[str, pa.Array]:
        """The columns DURATION, STEPS, PHASES, LEGS_RECORDED and FEATURES.

        Nobody asks about training trials, so their steps and phases, which take time, are null.
        """
        rate_hz = self.tokenizer.frame_rate_hz
        features = [
            kinematic_features(angles, rate_hz, mask).astype(np.float32)
            for angles, mask in zip(movements, masks, strict=True)
        ]
        held_out = [
            None if split == "train" else measure_statistics(angles, mask, rate_hz)
            for angles, mask, split in zip(movements, masks, splits, strict=True)
        ]
        return {
            DURATION: pa.array([len(angles) / rate_hz for angles in movements], pa.float64()),
            STEPS: pa.array([s and s.steps for s in held_out], pa.int64()),
            PHASES: pa.array([s and s.phases for s in held_out], pa.list_(pa.string())),
            LEGS_RECORDED: pa.array([s and s.legs_recorded for s in held_out], pa.bool_()),
            FEATURES: pa.array(features, pa.list_(pa.float32())),
        }

    def _encode_views(self, movements: list[np.ndarray], masks: np.ndarray) -> pa.Array:
        """Tokens of the views from number 1 on."""
        of_movement: list[list[np.ndarray]] = [[] for _ in movements]
        for number in range(1, self.views):
            pairs = [
                view(angles, mask, number, self.tokenizer.downsampling)
                for angles, mask in zip(movements, masks, strict=True)
            ]
            encoded = self.tokenizer.encode([angles for angles, _ in pairs], [mask for _, mask in pairs])
            for tokens_of_views, tokens in zip(of_movement, encoded, strict=True):
                tokens_of_views.append(tokens)
        return pa.array(of_movement, pa.list_(pa.list_(pa.int32())))


def view(
    angles: np.ndarray, mask: np.ndarray, number: int, downsampling: int
) -> tuple[np.ndarray, np.ndarray]:
    """View `number` of a movement: the same movement, read in another way, as its angles and its mask.

    Number 0 is the movement itself. Odd numbers are mirrored. The pair (2k, 2k + 1) leaves out frames at the
    beginning. The shifts of the first pairs are spread over one token step, however many there are
    (Halton): 0, 2, 1, 3 frames for steps of four. A shift by a whole step would give the same tokens again.
    angles: (T, 34) radians. mask: (34,) bool. downsampling: frames of a token step.
    """
    pair = number // 2
    shift = int(scipy.stats.qmc.Halton(1, scramble=False).random(pair + 1)[pair, 0] * downsampling)
    angles = angles[min(shift, len(angles) - 1) :]
    return mirror_movement(angles, mask) if is_mirrored(number) else (angles, mask)


def mirror_movement(angles: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mirrored copy of a movement (T, 34) and of its mask (34,): left and right change places."""
    return mirror(angles).astype(np.float32), mask[MIRROR_ORDER]


def is_mirrored(number: int) -> bool:
    """Whether the view of this number is mirrored. Number 0 is the movement itself."""
    return number % 2 == 1
