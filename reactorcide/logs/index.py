"""The index beside a log: whose each run of bytes is, when it came, and where a line begins.

Blocks of 512 bytes. Each begins with the totals of everything before it, so that a place in the log is
found by bisection over them; then come the runs written since, as three numbers each: length and kind,
milliseconds since the run before, and its bytes in the engine's copy less those. A block ends where the next
run does not fit any more, or where it covers so much of the log that a search in it would take long.

A log ends, for everybody who reads it, where its index says: the index is written after the log.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from reactorcide.logs.lines import Run

SERVICE, STDOUT, STDERR, GAP = range(4)
"""The kinds of runs: said by the service, printed by the container, and the note of what was left out."""

BLOCK_BYTES = 512
_MOST_SPAN_BYTES = 1 << 18
_HEADER = struct.Struct("<8q")
HEADER_BYTES = _HEADER.size


@dataclass(slots=True)
class Totals:
    """What a log holds up to some place in it."""

    at_ms: int = 0
    """When the last run before this place was written."""
    offset: int = 0
    lines: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Newlines so far, by kind."""
    printed: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Bytes so far, by kind, as many as they are in the engine's copy; only stdout and stderr count."""


class IndexedRun(NamedTuple):
    """Bytes of one kind that were written at once: ``start`` to ``end`` of the log."""

    kind: int
    at_ms: int
    start: int
    end: int
    printed_bytes: int
    index_end: int
    """Where its record ends in its block."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of an index: the totals before it, and its runs."""

    totals: Totals
    runs: list[IndexedRun]

    @property
    def end(self) -> int:
        """Where the last of its runs ends in the log."""
        return self.runs[-1].end if self.runs else self.totals.offset


def parse_totals(data: bytes) -> Totals | None:
    """Return the totals that a block begins with; ``None`` where they are not written whole."""
    if len(data) < HEADER_BYTES:
        return None
    at_ms, offset, service, stdout, stderr, gaps, out_bytes, err_bytes = _HEADER.unpack_from(data)
    return Totals(at_ms, offset, [service, stdout, stderr, gaps], [0, out_bytes, err_bytes, 0])


def parse_block(data: bytes) -> Block | None:
    """Return what a block holds, as far as it is written whole; ``None`` where not even its totals are."""
    totals = parse_totals(data)
    if totals is None:
        return None
    runs: list[IndexedRun] = []
    at_ms, start, position = totals.at_ms, totals.offset, HEADER_BYTES
    # No run is empty, so that a zero is the padding of a block that is full.
    while position < len(data) and data[position]:
        try:
            head, position = _number(data, position)
            later_ms, position = _number(data, position)
            masked, position = _number(data, position)
        except IndexError:
            break
        end = start + (head >> 2)
        at_ms += _signed(later_ms)
        runs.append(IndexedRun(head & 3, at_ms, start, end, end - start + _signed(masked), position))
        start = end
    return Block(totals, runs)


class IndexEncoder:
    """Makes the bytes that are added to an index; ``totals`` are those of the log's end."""

    def __init__(self, totals: Totals, used_bytes: int = 0, block_start: int = 0) -> None:
        """Go on in a block of which ``used_bytes`` are written; it begins at ``block_start`` of the log."""
        self.totals = totals
        self._used_bytes = used_bytes
        self._block_start = block_start

    def encode(self, runs: Iterable[Run], at_ms: int, out: list[bytes]) -> None:
        """Add the records of runs that are written at ``at_ms``; neighbours of one kind become one."""
        kind, printed_bytes, size, lines = -1, 0, 0, 0
        for next_kind, next_printed, text in runs:
            if next_kind != kind:
                if size:
                    self._add(kind, printed_bytes, size, lines, at_ms, out)
                kind, printed_bytes, size, lines = next_kind, 0, 0, 0
            printed_bytes += next_printed
            size += len(text)
            # From newline to newline, where ``count`` looks at every byte and takes seven times as long.
            lines += len(text) - len(text.replace(b"\n", b""))
        if size:
            self._add(kind, printed_bytes, size, lines, at_ms, out)

    def _add(
        self, kind: int, printed_bytes: int, size: int, lines: int, at_ms: int, out: list[bytes]
    ) -> None:
        totals = self.totals
        record = _record(size << 2 | kind, at_ms - totals.at_ms, printed_bytes - size)
        used = self._used_bytes + len(record)
        if (
            not self._used_bytes
            or used > BLOCK_BYTES
            or totals.offset - self._block_start >= _MOST_SPAN_BYTES
        ):
            if self._used_bytes:
                out.append(bytes(BLOCK_BYTES - self._used_bytes))
            out.append(
                _HEADER.pack(
                    totals.at_ms, totals.offset, *totals.lines, totals.printed[STDOUT], totals.printed[STDERR]
                )
            )
            used = HEADER_BYTES + len(record)
            self._block_start = totals.offset
        self._used_bytes = used
        out.append(record)
        totals.at_ms = at_ms
        totals.offset += size
        totals.lines[kind] += lines
        totals.printed[kind] += printed_bytes


@lru_cache(4096)
def _record(head: int, later_ms: int, masked: int) -> bytes:
    """Return a run's record; most lines of a log are like one before, so that most are made already."""
    return _varint(head) + _varint(_zigzag(later_ms)) + _varint(_zigzag(masked))


def _varint(number: int) -> bytes:
    """Return a number, seven bits a byte, the lowest first, all but the last byte marked."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _zigzag(number: int) -> int:
    """Return a number, which may be negative, as one that is not, and is small where it was."""
    return number << 1 if number >= 0 else (-number << 1) - 1


def _signed(number: int) -> int:
    return -(number + 1 >> 1) if number & 1 else number >> 1


def _number(data: bytes, position: int) -> tuple[int, int]:
    """Return the varint at ``position``, and where it ends; raises ``IndexError`` where it is cut off."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
