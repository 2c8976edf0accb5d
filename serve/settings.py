"""Settings of the gateway: how recordings are read, and the limits of a request.

The settings of the whole application, with the model, are `serve.deployment.ServeSettings`.
"""

from pydantic import Field

from biomechgpt.core.settings import Settings
from biomechgpt.recordings.bounded import Limits
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings

KEY = "BIOMECHGPT_API_KEY"
"""Environment variable that holds the access key."""


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
    """File of access keys that `biomechgpt keys add` writes.

    None: `biomechgpt serve` takes ~/.biomechgpt/keys.json; elsewhere only the key of the environment is valid."""
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
    readers_at_once: int = Field(2, ge=1)
    """Recordings that are read at once; others wait, and clients take turns."""
    max_additional_recordings: int = Field(20, ge=1)
    """Largest number of further recordings of a person in one request."""
