"""Parsing and formatting of sizes in bytes."""

import re

MIN_FILE_BYTES = 4096
"""The least that a file or a directory counts: many empty ones fill a disk, too."""

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
PATTERN = "([0-9]{1,15})([bkmgtBKMGT]?)"
"""A regular expression for the texts that ``parse_size`` accepts."""
_SIZE = re.compile(PATTERN)


def parse_size(text: str) -> int:
    """Return a size in bytes: digits, optionally followed by b, k, m, g or t (powers of 1024).

    Raises ``ValueError`` for anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write bytes, or a number with k, m, g or t, like 512m")
    return int(match[1]) * _UNITS[match[2].lower()]


def format_size(size_bytes: int) -> str:
    """Return ``size_bytes`` in the largest binary unit that leaves at most one decimal: ``256 MiB``."""
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"
