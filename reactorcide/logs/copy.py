"""The length of output in the engine's own copy: a log that continues from the copy skips that much.

The engine stores output as JSON, in pieces that end with a line or after 16 KiB. A byte that is not UTF-8
within its piece is returned as U+FFFD, which has three bytes.
"""

_PIECE_BYTES = 1 << 14
_LINE_BYTES = 75
"""What the copy adds to each line: its stream, its time, and the JSON around them."""
_SURPLUS_BYTES = 2
"""How much longer a byte that is not UTF-8 is in the copy."""


def copied_bytes(size_bytes: int, lines: int) -> int:
    """Return about how much of the engine's disk the copy of an output takes."""
    return size_bytes + _LINE_BYTES * lines


class CopyCounter:
    """Counts by how much one stream is longer in the engine's copy. Each text ends with a whole character."""

    def __init__(self) -> None:
        self._column = 0

    def surplus(self, text: bytes) -> int:
        """Return by how many bytes the copy of ``text`` is longer; continues where the last call ended."""
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
        return invalid * _SURPLUS_BYTES


def incomplete_bytes(text: bytes) -> int:
    """Return how many bytes at the end of ``text`` may be the start of an incomplete character."""
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
