"""The command `biomechgpt audit-log`: exports, checks and prunes the audit log."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from biomechgpt.core.settings import InputError, Settings
from serve.audit import prune
from serve.clients import KEYS_FILE
from serve.fhir.elements import BASE
from serve.records import Records, Unavailable
from serve.settings import GatewaySettings

CHAIN = f"{BASE}/StructureDefinition/audit-chain"
"""Extension of an exported record: hash of the record before it, and its own."""


class AuditLogSettings(Settings):
    """Settings of `biomechgpt audit-log`."""

    action: Literal["export", "verify", "prune"] = "verify"
    """export: all records as NDJSON, one AuditEvent a line. verify: check the chain of hashes.
    prune: delete the records that are older than `days`."""
    database: str | None = None
    """URI of the server's database. None: records.sqlite beside ~/.biomechgpt/keys.json."""
    output: str | None = None
    """File of the export. None: standard output."""
    days: float | None = Field(None, gt=0)
    """For prune: age in days from which on records are deleted."""
    head: str | None = Field(None, pattern=r"^\d+:[0-9a-f]{64}$")
    """For verify: what an earlier verify printed. A record that was there then must still be there, unchanged."""
    timeout_s: float = Field(60.0, gt=0)
    """Longest wait for the database."""


def run_audit_log(settings: AuditLogSettings) -> None:
    """Export, check or prune. Raises InputError for a changed record, or a database that cannot be read."""
    uri = settings.database or GatewaySettings(keys=KEYS_FILE).database_uri or ""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise InputError(f"database: expected a file of records, found none at {path}")
    records = Records(uri, settings.timeout_s)
    try:
        if settings.action == "export":
            _export(records, settings.output)
        elif settings.action == "verify":
            _verify(records, settings.head)
        elif settings.days is None:
            raise InputError("days: expected the age from which on records are deleted (--days 2190)")
        else:
            print(f"deleted {prune(records, settings.days)} records")
    except Unavailable as error:
        raise InputError(f"database: expected one that can be used, found {error}") from None


def _export(records: Records, output: str | None) -> None:
    with ExitStack() as stack:
        file = stack.enter_context(Path(output).open("w", encoding="utf-8")) if output else sys.stdout
        for event in exported(records):
            file.write(json.dumps(event, separators=(",", ":")) + "\n")


def exported(records: Records) -> Iterator[dict[str, Any]]:
    """The records, oldest first, each with its hash and that of the record before it.

    The hash is the SHA-256 of the hash before, a line feed, and the record without this extension as compact JSON.
    """
    for row in records.rows():
        parts = [{"url": "previous", "valueString": row.previous}, {"url": "hash", "valueString": row.hash}]
        yield {**json.loads(row.event), "extension": [{"url": CHAIN, "extension": parts}]}


def _verify(records: Records, head: str | None) -> None:
    seq, digest = records.verify()
    if head is not None:
        known_seq, _, known = head.partition(":")
        found = records.hash_of(int(known_seq))
        if found != known:
            raise InputError(
                f"record {known_seq}: expected the hash {known}, found {found or 'no such record'}"
            )
    print(f"{seq} records so far, each as it was written. Keep this line elsewhere, for --head:")
    print(f"{seq}:{digest}")
