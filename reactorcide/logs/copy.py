"""How long the engine's own copy of an output is: a log that goes on from it leaves out so much of it.

The engine keeps it as JSON, in pieces that end with their line or after 16 KiB. A byte that is no UTF-8 in
its piece comes back from there as U+FFFD, which is three bytes.
"""

_PIECE_BYTES = 1 << 14
_LINE_BYTES = 75
"""What the copy of each line has beside it: its stream, its time, and what makes it JSON."""
_MORE_BYTES = 2
"""By which the copy of a byte that is no UTF-8 is longer."""


def copied_bytes(size_bytes: int, lines: int) -> int:
    """Return what the copy of an output takes of the engine's disk, about."""
    return size_bytes + _LINE_BYTES * lines


class CopyCounter:
    """Counts what one stream is longer by in the engine's copy. What it is given ends with a character."""

    def __init__(self) -> None:
        self._column = 0

    def surplus(self, text: bytes) -> int:
        """Return by how many bytes the copy of ``text`` is longer; it goes on where the call before ended."""
        begin = text.rfind(b"\n") + 1
        column, self._column = self._column, len(text) - begin if begin else self._column + len(text)
        if text.isascii():
            return 0
        invalid = 0
        for line in text.split(b"\n"):
            start = 0
            while start < len(line):
                end = start + _PIECE_BYTES - column % _PIECE_BYTES
                invalid += _invalid_bytes(line[start:end])
                start, column = end, 0
            column = 0
        return invalid * _MORE_BYTES


def incomplete_bytes(text: bytes) -> int:
    """Return how many bytes at the end of ``text`` may be the beginning of a character."""
    for size in (1, 2, 3):
        byte = text[-size] if size <= len(text) else 0
        if byte & 0xC0 != 0x80:
            # The first byte says how many there are.
            return size if 0xC0 <= byte < 0xF8 and (0xFF ^ byte).bit_length() < 8 - size else 0
    return 0


def _invalid_bytes(piece: bytes) -> int:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return sum("\udc80" <= character <= "\udcff" for character in piece.decode(errors="surrogateescape"))
    return 0
