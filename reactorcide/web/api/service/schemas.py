"""The schemas of the service itself."""

from typing import Literal

from pydantic import BaseModel

from reactorcide.web.api.schemas import Id


class Verification(BaseModel):
    """Whether the token is valid, if one was sent."""

    verified: bool
    user_authenticated: bool
    user_id: Id | None


class HealthResponse(BaseModel):
    """The service answers."""

    status: Literal["OK"]
    version: str
    verification: Verification


class ReadyResponse(BaseModel):
    """The last check of each part: `ok`, or a sentence about the problem."""

    checks: dict[str, str]
    ages_s: dict[str, float | None]
    """Seconds since the last check of each part; null if there was none yet."""
