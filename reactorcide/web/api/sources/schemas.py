"""The schemas of uploaded sources."""

from pydantic import BaseModel

from reactorcide.web.api.schemas import Count, Sha256


class SourceResponse(BaseModel):
    """An uploaded source. Its id is the SHA-256 of its bytes."""

    source_id: Sha256
    size: Count
    files: Count


class SourcePath(BaseModel):
    """The id of a source, in the path."""

    source_id: Sha256
