"""Identifiers: UUID version 7, so that sorting by id sorts by time of creation."""

import os
import re
import time
import uuid

_BEGINNING = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]{0,27})?")


def new_id() -> str:
    """Return a new UUIDv7 string: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562, 5.7)."""
    unix_ms = time.time_ns() // 1_000_000
    value = (unix_ms << 80) | int.from_bytes(os.urandom(10), "big")
    value &= ~(0xF << 76) & ~(0x3 << 62)
    value |= (0x7 << 76) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def first_id(unix_ms: int) -> str:
    """Return what is not greater than any id of that time or later, and greater than those before."""
    return f"{unix_ms >> 16:08x}-{unix_ms & 0xFFFF:04x}"


def is_beginning_of_id(text: str) -> bool:
    """Return whether ``text`` is an id, or at least its first 8 characters, which ids of about one minute
    share."""
    return _BEGINNING.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Return whether ``text`` is a UUID in its canonical lower-case form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
