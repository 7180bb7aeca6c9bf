"""The schemas of the service itself."""

from typing import Literal

from pydantic import BaseModel

from reactorcide.web.api.schemas import Id


class Verification(BaseModel):
    """What the service makes of the token that was sent, if one was."""

    verified: bool
    user_authenticated: bool
    user_id: Id | None


class HealthResponse(BaseModel):
    """The service answers."""

    status: Literal["OK"]
    version: str
    verification: Verification


class ReadyResponse(BaseModel):
    """Whether each part works: `ok`, or a sentence."""

    checks: dict[str, str]
    ages_s: dict[str, float | None]
    """How many seconds ago each was found; null where nothing has been found yet."""
