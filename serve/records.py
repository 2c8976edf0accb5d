"""What the server keeps, in one database for all its processes: the audit log, access tokens, used signatures.

SQLite, or PostgreSQL for several machines. A record is written when its transaction is: SQLite in WAL mode with
synchronous=FULL, PostgreSQL with synchronous_commit=on. Each record has the hash of the one before it, so a record
that is changed or taken out is noticed. Knows nothing about HTTP or the content of a record.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from biomechgpt.core.settings import InputError

_METADATA = MetaData()
EVENTS = Table(
    "audit_events",
    _METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("recorded_ms", BigInteger, nullable=False, index=True),
    Column("client", String(255), nullable=False),
    Column("outcome", String(2), nullable=False),
    Column("event", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
_TOKENS = Table(
    "access_tokens",
    _METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("client", String(255), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("expires", Float, nullable=False),
)
_USED = Table(
    "used_assertions",
    _METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("expires", Float, nullable=False),
)
FIRST = "0" * 64
"""Stands for the hash before the first record."""
CUT = "https://biomechgpt.example/fhir/identifier/audit-cut"
"""System of the identifier, in the record of a deletion, that names the last deleted record as SEQ:HASH."""


class Unavailable(Exception):
    """The database is locked, full or not there. Nothing was written."""


class Records:
    """The database. It is opened when it is first needed.

    uri: sqlite:///PATH or postgresql://HOST/NAME.
    timeout_s: longest wait for a lock or a connection.
    Raises InputError for another URI. Methods raise Unavailable.
    """

    def __init__(self, uri: str, timeout_s: float = 5.0) -> None:
        self.engine = _engine(uri, timeout_s)
        self._is_ready = False

    # --- Audit log

    def append(self, content: dict[str, Any]) -> int:
        """Write an AuditEvent at the end of the chain. Returns its number, which it has as `id`.

        When this returns, the record survives the end of the process and of the machine.
        """
        with self._writing() as connection:
            return _append(connection, content)

    def search(
        self,
        since_ms: int | None = None,
        until_ms: int | None = None,
        client: str | None = None,
        outcomes: Sequence[str] = (),
        before: int | None = None,
        count: int = 50,
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many records match, and the newest of them.

        since_ms, until_ms: first and last time, in ms of Unix time. before: only those with a smaller number.
        """
        conditions = [
            *([EVENTS.c.recorded_ms >= since_ms] if since_ms is not None else []),
            *([EVENTS.c.recorded_ms <= until_ms] if until_ms is not None else []),
            *([EVENTS.c.client == client] if client is not None else []),
            *([EVENTS.c.outcome.in_(outcomes)] if outcomes else []),
        ]
        page = [EVENTS.c.seq < before] if before is not None else []
        with self._reading() as connection:
            total = connection.scalar(select(func.count()).select_from(EVENTS).where(*conditions)) or 0
            newest = (
                select(EVENTS.c.event).where(*conditions, *page).order_by(EVENTS.c.seq.desc()).limit(count)
            )
            return total, [json.loads(row.event) for row in connection.execute(newest)]

    def find(self, seq: int) -> dict[str, Any] | None:
        """The record of a number; None if there is none."""
        with self._reading() as connection:
            found = connection.scalar(select(EVENTS.c.event).where(EVENTS.c.seq == seq))
            return None if found is None else dict(json.loads(found))

    def hash_of(self, seq: int) -> str | None:
        """The hash of a record; None if there is none."""
        with self._reading() as connection:
            return connection.scalar(select(EVENTS.c.hash).where(EVENTS.c.seq == seq))

    def rows(self) -> Iterator[Any]:
        """All records with their hashes, oldest first."""
        with self._reading() as connection:
            yield from connection.execution_options(yield_per=1000).execute(
                select(EVENTS).order_by(EVENTS.c.seq)
            )

    def verify(self) -> tuple[int, str]:
        """Check the chain. Returns number and hash of the newest record: kept elsewhere, they show a cut end.

        Raises InputError that names the first record that was changed, or taken out.
        """
        first, last, cuts = None, (0, FIRST), set()
        for row in self.rows():
            content = json.loads(row.event)
            if first is None:
                first = last = (row.seq - 1, row.previous)
            if (row.seq - 1, row.previous) != last:
                raise InputError(
                    f"record {row.seq}: expected it to follow record {last[0]}; one was taken out"
                )
            columns = (row.seq, row.recorded_ms, row.client, row.outcome, row.hash)
            if columns != (*_columns(row.seq, content), _hash(row.previous, row.event)):
                raise InputError(
                    f"record {row.seq}: expected the hash of its content, found a changed record"
                )
            cuts |= {cut for cut in map(_cut_of, content.get("entity", ())) if cut}
            last = (row.seq, row.hash)
        if first not in (None, (0, FIRST)) and first not in cuts:
            raise InputError(
                f"record {first[0] + 1}: expected records before it, found none, and no deletion"
            )
        return last

    def prune(self, before_ms: int, deletion: dict[str, Any]) -> int:
        """Delete the records that are older. Returns how many.

        deletion: AuditEvent that says so; it gets an entity that names the last deleted record, and is kept.
        """
        with self._writing() as connection:
            # Records are in order of number; clocks of several machines may differ a little.
            kept = select(func.min(EVENTS.c.seq)).where(EVENTS.c.recorded_ms >= before_ms)
            newest = select(func.max(EVENTS.c.seq))
            first_kept = connection.scalar(kept) or (connection.scalar(newest) or 0) + 1
            last = connection.execute(
                select(EVENTS.c.seq, EVENTS.c.hash).where(EVENTS.c.seq < first_kept)
                .order_by(EVENTS.c.seq.desc()).limit(1)
            ).first()  # fmt: skip
            if last is None:
                return 0
            cut = {"what": {"identifier": {"system": CUT, "value": f"{last.seq}:{last.hash}"}}}
            _append(connection, {**deletion, "entity": [cut]})
            return connection.execute(delete(EVENTS).where(EVENTS.c.seq <= last.seq)).rowcount

    # --- Tokens

    def use_once(self, key: str, expires: float) -> bool:
        """Note that something was used; False if it was already. It is forgotten when it has expired."""
        with self._writing() as connection:
            connection.execute(delete(_USED).where(_USED.c.expires < time.time()))
            if connection.scalar(select(_USED.c.sha256).where(_USED.c.sha256 == _sha256(key))):
                return False
            connection.execute(insert(_USED).values(sha256=_sha256(key), expires=expires))
            return True

    def keep_token(self, token: str, client: str, scopes: Sequence[str], expires: float) -> None:
        """Keep the hash of an access token."""
        with self._writing() as connection:
            connection.execute(delete(_TOKENS).where(_TOKENS.c.expires < time.time()))
            values = {
                "sha256": _sha256(token),
                "client": client,
                "scopes": " ".join(scopes),
                "expires": expires,
            }
            connection.execute(insert(_TOKENS).values(values))

    def token(self, token: str) -> tuple[str, tuple[str, ...]] | None:
        """Client and scopes of an access token; None if it is unknown or has expired."""
        with self._reading() as connection:
            row = connection.execute(select(_TOKENS).where(_TOKENS.c.sha256 == _sha256(token))).first()
            return (row.client, tuple(row.scopes.split())) if row and row.expires > time.time() else None

    # --- Connections

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that no other writer shares: each record needs the hash of the one before it."""
        with self._connected() as connection:
            writer = connection.execution_options(is_writer=True)
            with writer.begin():
                if self.engine.dialect.name == "postgresql":
                    writer.execute(text("LOCK TABLE audit_events IN SHARE ROW EXCLUSIVE MODE"))
                yield writer

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._connected() as connection, connection.begin():
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            if not self._is_ready:
                self._create_tables()
                self._is_ready = True
            with self.engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise Unavailable(type(error).__name__) from error  # its message may hold a record

    def _create_tables(self) -> None:
        path = self.engine.url.database
        if self.engine.dialect.name == "sqlite" and path:
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with self.engine.connect() as connection, connection.execution_options(is_writer=True).begin():
            if self.engine.dialect.name == "postgresql":  # two processes may come at once
                connection.execute(text("SELECT pg_advisory_xact_lock(7263544)"))
            _METADATA.create_all(connection)


def _append(connection: Connection, content: dict[str, Any]) -> int:
    newest = select(EVENTS.c.seq, EVENTS.c.hash).order_by(EVENTS.c.seq.desc()).limit(1)
    seq, previous = connection.execute(newest).first() or (0, FIRST)
    numbered = {**content, "id": str(seq + 1)}
    written = json.dumps(numbered, separators=(",", ":"))
    _, recorded_ms, client, outcome = _columns(seq + 1, numbered)
    connection.execute(
        insert(EVENTS).values(
            seq=seq + 1,
            recorded_ms=recorded_ms,
            client=client,
            outcome=outcome,
            event=written,
            previous=previous,
            hash=_hash(previous, written),
        )
    )
    return int(seq) + 1


def _columns(seq: int, content: dict[str, Any]) -> tuple[int, int, str, str]:
    """Number, time, client and outcome of a record, for the search: copies of what its content says."""
    return seq, milliseconds(content["recorded"]), content["agent"][0]["altId"], content["outcome"]


def _cut_of(entity: dict[str, Any]) -> tuple[int, str] | None:
    """(number, hash) of the last record that a deletion took."""
    identifier = entity.get("what", {}).get("identifier", {})
    if identifier.get("system") != CUT:
        return None
    seq, _, digest = identifier["value"].partition(":")
    return int(seq), digest


def milliseconds(instant: str) -> int:
    """Unix time in ms of an ISO 8601 time with a time zone. Raises ValueError."""
    time_read = datetime.fromisoformat(instant)
    if time_read.tzinfo is None:
        raise ValueError("expected a time with a time zone")
    return round(time_read.timestamp() * 1000)


def _hash(previous: str, written: str) -> str:
    return hashlib.sha256(f"{previous}\n{written}".encode()).hexdigest()


def _sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _engine(uri: str, timeout_s: float) -> Engine:
    expected = "expected sqlite:///PATH or postgresql://HOST/NAME"
    try:
        url: URL = make_url(uri)
    except ArgumentError:
        raise InputError(f"database: {expected}, found another text") from None  # it may hold a password
    name = url.get_backend_name()
    if name == "sqlite" and url.database not in (None, "", ":memory:"):
        engine = create_engine(url, connect_args={"timeout": timeout_s})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if name == "postgresql":
        waits_ms = round(timeout_s * 1000)
        options = f"-c lock_timeout={waits_ms} -c statement_timeout={waits_ms} -c synchronous_commit=on"
        try:
            return create_engine(
                url.set(drivername="postgresql+psycopg"),
                connect_args={"connect_timeout": max(2, round(timeout_s)), "options": options},
                pool_pre_ping=True,
                pool_timeout=timeout_s,
            )
        except ModuleNotFoundError:
            raise InputError("database: PostgreSQL needs psycopg: pip install '.[postgres]'") from None
    raise InputError(f"database: {expected}, found {name}")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins transactions, not Python's sqlite3
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A reader that becomes a writer could find that another wrote meanwhile. So writers say so at once.
    is_writer = connection.get_execution_options().get("is_writer")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")
