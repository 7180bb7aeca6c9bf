"""The schemas of uploaded sources."""

from pydantic import BaseModel

from reactorcide.web.api.schemas import Count, Sha256


class SourceResponse(BaseModel):
    """A source that was uploaded: its id is the SHA-256 of its bytes."""

    source_id: Sha256
    size: Count
    files: Count


class SourcePath(BaseModel):
    """Which source."""

    source_id: Sha256
