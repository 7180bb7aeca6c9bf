"""Sources that were uploaded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A tar.gz that was uploaded."""

    source_id: str
    """The SHA-256 of its bytes, in hexadecimal."""
    object_key: str
    size_bytes: int
    files: int
    """Regular files in it."""
