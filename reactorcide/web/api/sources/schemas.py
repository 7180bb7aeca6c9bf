"""The schemas of uploaded sources."""

from reactorcide.web.api.schemas import Count, Schema, Sha256


class SourceResponse(Schema):
    """An uploaded source. Its id is the SHA-256 of its bytes."""

    source_id: Sha256
    size: Count
    files: Count


class SourcePath(Schema):
    """The id of a source, in the path."""

    source_id: Sha256
