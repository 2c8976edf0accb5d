"""Settings of the gateway: how recordings are read, and the limits of a request.

The settings of the whole application, with the model, are `serve.deployment.ServeSettings`.
"""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from biomechgpt.core.settings import Settings
from biomechgpt.recordings.bounded import Limits
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings

KEY = "BIOMECHGPT_API_KEY"
"""Environment variable that holds the access key."""


DATABASE = "records.sqlite"
"""File beside the file of keys, for what the server keeps, if no database is named."""


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected an address such as https://gait.example.org")
    return value


class IssuerSettings(Settings):
    """An authorization server of the site, whose access tokens (JWT) are accepted."""

    issuer: str
    """Its name: the claim `iss` of its tokens."""
    jwks: str
    """File or https URI of its public keys (JWKS)."""
    audience: str
    """The claim `aud` that tokens for this server have."""
    token_endpoint: str
    """Where clients get tokens; told to them at /.well-known/smart-configuration."""
    client_claim: str = "client_id"
    """Claim that names the client."""

    _check_token_endpoint = field_validator("token_endpoint")(_web_address)


class SmartSettings(Settings):
    """SMART Backend Services: clients sign with a private key, and get access tokens that end after minutes."""

    url: str
    """Address of this server as its clients know it, with its route prefix. They sign for URL/auth/token."""
    issuer: IssuerSettings | None = None
    """Authorization server whose tokens are accepted. None: this server gives tokens itself."""
    token_lifetime_s: int = Field(300, ge=10, le=3600)
    """Seconds until an access token of this server ends."""
    clock_skew_s: int = Field(30, ge=0, le=300)
    """Most seconds by which the clock of a client may be wrong."""
    jwks_lifetime_s: float = Field(300.0, gt=0)
    """Seconds for which public keys are kept. An unknown key is looked for at once, at most every 10 s."""

    _check_url = field_validator("url")(_web_address)

    @property
    def token_endpoint(self) -> str:
        """Where clients get tokens."""
        return self.issuer.token_endpoint if self.issuer else f"{self.url.rstrip('/')}/auth/token"


class GatewaySettings(Settings):
    """Settings of the HTTP side. They need no model and no cluster."""

    readers: ReaderSettings = ReaderSettings()
    """How recordings are read."""
    quality: QualitySettings = QualitySettings()
    """Which recordings are refused or repaired, as in a cohort."""
    max_risk: float | None = Field(None, gt=0, le=1)
    """Highest accepted error rate of a label, for persons on average, with confidence 0.9. None: no limit.

    A label whose selective_risk is above it, or that has none, is returned as uncertain."""
    keys: str | None = None
    """File of clients that `biomechgpt keys add` writes. None: only the key of the environment is valid."""
    smart: SmartSettings | None = None
    """SMART Backend Services. None: clients have keys only."""
    audit: Literal["auto", "on", "off"] = "auto"
    """Which answers are recorded before they are sent. auto: all, unless the only key is the environment's."""
    log: Literal["errors", "requests"] = "errors"
    """Requests that get a line in the log: those that failed by a fault of the server, or all."""
    audit_days: float | None = Field(None, gt=0)
    """Days after which a record is deleted. None: never."""
    database: str | None = None
    """URI of the database for records and tokens: sqlite:////path/records.sqlite or postgresql://host/name.

    It must not hold a password: use PGPASSFILE. None: records.sqlite beside the file of keys."""
    database_timeout_s: float = Field(5.0, gt=0)
    """Longest wait for the database. An answer that cannot be recorded by then is not sent."""
    max_requests: int = Field(64, ge=1)
    """Largest number of requests in progress. Further ones are refused with 503."""
    max_client_requests: int = Field(16, ge=1)
    """Largest number of requests in progress of one client (one key). Further ones are refused with 429."""
    client_questions_per_minute: float = Field(3000.0, gt=0)
    """Most questions of one client in a minute, on average. Further ones are refused with 429."""
    max_questions: int = Field(32, ge=1)
    """Most distinct questions to the model in one request."""
    questions_at_once: int = Field(16, ge=1)
    """Questions that the model works on at once; others wait, and clients take turns. About the model's batch."""
    max_wait_s: float = Field(20.0, gt=0)
    """Longest expected wait of a question. A request that would wait longer is refused at once."""
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    """Largest request body, in bytes."""
    max_buffered_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """Most bytes of all bodies in progress together. Further ones are refused with 503."""
    body_timeout_s: float = Field(30.0, gt=0)
    """Time for a request's body to arrive."""
    answer_timeout_s: float = Field(60.0, gt=0)
    """Time for an answer, from the end of the request's body. Later ones are refused with 503."""
    max_frames: int = Field(60_000, ge=100)
    """Largest number of frames in a recording, at its own frame rate and at the tokenizer's."""
    max_duration_s: float = Field(600.0, gt=0)
    """Longest recording, in seconds."""
    max_client_jobs: int = Field(8, ge=1)
    """Largest number of unfinished jobs (batches, and FHIR's respond-async) of one client."""
    max_batch_recordings: int = Field(500, ge=1)
    """Largest number of recordings in one batch."""
    max_kept_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """Most bytes of uploaded files and results of jobs that are kept in memory, of all clients together.

    Recordings that wait in jobs may take as much again."""
    max_client_kept_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Most bytes of them of one client."""
    keep_s: float = Field(3600.0, gt=0)
    """Time that uploaded files and results of jobs are kept, in seconds."""
    reading: Limits = Limits()
    """Memory and time of the process that reads one recording."""
    shadow: str | None = None
    """URI of a model that is asked the same and answers nobody; how often it agrees is counted. None: none."""
    shadow_questions_at_once: int = Field(16, ge=1)
    """Questions that the shadow model is asked at once; further ones it is not asked."""
    readers_at_once: int = Field(2, ge=1)
    """Recordings that are read or measured at once; others wait, and clients take turns."""
    max_additional_recordings: int = Field(20, ge=1)
    """Largest number of further recordings of a person in one request."""

    @field_validator("readers")
    @classmethod
    def _of_no_person(cls, readers: ReaderSettings) -> ReaderSettings:
        if readers.opensim_model is not None:
            raise ValueError(
                "opensim_model: expected none on a server, whose uploads are of many people, found "
                f"{readers.opensim_model}"
            )
        return readers

    @model_validator(mode="after")
    def _database_for_records(self) -> "GatewaySettings":
        if (self.audit == "on" or self.smart) and self.database_uri is None:
            raise ValueError(
                "database: expected the URI of a database for `audit: on` and `smart`, found none"
            )
        return self

    @property
    def database_uri(self) -> str | None:
        """The database; None if there is none."""
        if self.database is not None or self.keys is None:
            return self.database
        return f"sqlite:///{Path(self.keys).expanduser().absolute().with_name(DATABASE)}"
