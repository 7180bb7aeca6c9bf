"""The schemas of the service itself."""

from typing import Literal

from pydantic import Field

from reactorcide.web.api.schemas import Count, Id, Schema


class Verification(Schema):
    """Whether the token is valid, if one was sent."""

    verified: bool
    user_authenticated: bool
    user_id: Id | None


class HealthResponse(Schema):
    """The service answers."""

    status: Literal["OK"]
    version: str
    verification: Verification


class RetentionResponse(Schema):
    """How long things are kept, by the settings of the service; 0 sets no limit, unless it says otherwise."""

    keep_jobs: Count = Field(description="Number of finished jobs.")
    keep_days: Count = Field(description="Days after the end of a job.")
    keep_bytes: Count = Field(description="Total size of logs and artifacts.")
    keep_image_days: Count = Field(description="Days after the last use of a pulled image.")
    keep_source_days: Count = Field(description="Days after the last use of an uploaded source.")
    max_cache_bytes: Count = Field(description="Total size of the caches of a project or user; 0: no caches.")


class ReadyResponse(Schema):
    """The last check of each part: `ok`, or a sentence about the problem."""

    checks: dict[str, str]
    ages_s: dict[str, float | None]
    """Seconds since the last check of each part; null if there was none yet."""
