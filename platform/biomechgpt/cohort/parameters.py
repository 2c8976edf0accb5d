"""The motion parameters of a cohort as an artifact, measured once, with one Ray task per shard."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from biomechgpt.cohort.shards import Cohort, Shard
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.motion.parameters import PARAMETERS, ParameterValues, measure_parameters

VERSION = 1


def make_parameters(cohort: Artifact, root: str) -> Artifact:
    """Make the parameters artifact of a cohort: `parameters.parquet`, one row per trial (null: not measured).

    The names of the parameters are its settings, so that a new parameter makes a new artifact.
    """

    def build(uri: str) -> dict[str, Any]:
        rows = [row for result in Cohort(cohort).map_shards(_measure_shard) for row in result["rows"]]
        schema = pa.schema([("trial", pa.string()), *((name, pa.float64()) for name in PARAMETERS)])
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema).sort_by("trial"), buffer)
        storage.write_bytes(storage.join(uri, "parameters.parquet"), buffer.getvalue().to_pybytes())
        return {"trials": len(rows), "walks": sum(row["cadence"] is not None for row in rows)}

    return artifact.make("parameters", VERSION, {"names": list(PARAMETERS)}, {"cohort": cohort}, build, root)


def read_parameters(parameters: Artifact) -> dict[str, ParameterValues]:
    """{trial: {parameter: value}}."""
    rows = pq.read_table(artifact.local_copy(parameters.path("parameters.parquet"))).to_pylist()
    return {row.pop("trial"): row for row in rows}


def _measure_shard(shard: Shard) -> dict[str, Any]:
    return {
        "rows": [
            {"trial": t.trial, **measure_parameters(t.angles_rad, t.pelvis, t.frame_rate_hz, t.joint_mask)}
            for t in shard.trials()
        ]
    }
