"""The answers table of an evaluation: one Parquet file that every score can be computed from again.

A row is one question and the answer of one source (the model or a baseline), with the participant. The file's own
metadata hold facts about the table as a whole: tasks, data, model.
"""

import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.questions.tasks import Tasks, tasks_from_json

FILE = "answers.parquet"
_KEY = b"biomechgpt"


def tasks_of(about: dict[str, Any]) -> Tasks:
    """The tasks of a table's questions. about: the table's metadata."""
    return tasks_from_json(about["tasks"])


def write(uri: str, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write a table and its metadata (JSON values). Raises ValueError for NaN in the metadata."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), _KEY: json.dumps(about, allow_nan=False).encode()}
    content = content.replace_schema_metadata(metadata)
    buffer = pa.BufferOutputStream()
    pq.write_table(content, buffer)
    storage.write_bytes(uri, buffer.getvalue().to_pybytes())


def is_one(uri: str) -> bool:
    """Whether a file is an evaluation's answers table."""
    try:
        return _KEY in (pq.read_schema(pa.BufferReader(storage.read_bytes(uri))).metadata or {})
    except pa.ArrowInvalid:
        return False


def read(uri: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its metadata. Raises InputError if the file is not an evaluation's."""
    if not storage.exists(uri):
        raise InputError(f"{uri}: expected an evaluation's {FILE}, found no such file")
    try:
        content = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri}: expected an evaluation's {FILE}, found no Parquet file ({error})") from None
    about = (content.schema.metadata or {}).get(_KEY)
    if about is None:
        raise InputError(f"{uri}: expected an evaluation's {FILE}, found a table without its tasks")
    return content.to_pandas(), json.loads(about)
