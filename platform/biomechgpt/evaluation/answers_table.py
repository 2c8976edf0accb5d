"""The answers table of an evaluation: one Parquet file that holds all its figures can be made from again.

A row is a question and what a source (the model, a baseline) answered; who the participant is stands beside it.
What is true of the whole (tasks, data, model) lies in the file's own metadata.
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
    """The tasks that a table's questions are of, from what is known about it."""
    return tasks_from_json(about["tasks"])


def write(uri: str, table: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write a table with what is to be known about it (plain values)."""
    made = pa.Table.from_pandas(table, preserve_index=False)
    made = made.replace_schema_metadata({**(made.schema.metadata or {}), _KEY: json.dumps(about).encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(made, buffer)
    storage.write_bytes(uri, buffer.getvalue().to_pybytes())


def read(uri: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and what is known about it. InputError where the file is no evaluation's."""
    if not storage.exists(uri):
        raise InputError(f"{uri}: expected an evaluation's {FILE}, found no such file")
    try:
        made = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri}: expected an evaluation's {FILE}, found no Parquet file ({error})") from None
    about = (made.schema.metadata or {}).get(_KEY)
    if about is None:
        raise InputError(
            f"{uri}: expected an evaluation's {FILE}, found a table that says nothing of its tasks"
        )
    return made.to_pandas(), json.loads(about)
