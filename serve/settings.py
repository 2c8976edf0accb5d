"""Settings of the gateway: how recordings are read, and the limits of a request.

The settings of the whole application, with the model, are `serve.deployment.ServeSettings`.
"""

from pydantic import Field

from biomechgpt.core.settings import Settings
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
    max_requests: int = Field(64, ge=1)
    """Largest number of requests in progress. Further ones are refused with 503."""
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    """Largest request body, in bytes."""
    max_frames: int = Field(60_000, ge=100)
    """Largest number of frames in a recording, at its own frame rate."""
    max_additional_recordings: int = Field(20, ge=1)
    """Largest number of further recordings of a person in one request."""
