"""Uploaded sources."""

from reactorcide.lib.records import record


@record(kw_only=True)
class Source:
    """An uploaded tar.gz."""

    source_id: str
    """The SHA-256 of its bytes, in hexadecimal."""
    object_key: str
    size_bytes: int
    files: int
    """The number of regular files."""
