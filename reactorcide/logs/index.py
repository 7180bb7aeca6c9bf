"""The index beside a log: the stream and the time of each run of bytes, and where lines begin.

It has blocks of 512 bytes. A block begins with the totals of everything before it, so that a place in the
log is found by bisection. The block's runs follow, with three numbers each: length and kind, milliseconds
since the previous run, and its length in the engine's copy less its length in the log. A block ends when the
next run does not fit, or when it covers so much of the log that searching it would take long.

For readers a log ends where its index ends: the index is written after the log.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from reactorcide.lib.records import record
from reactorcide.logs.lines import Run

SERVICE, STDOUT, STDERR, GAP = range(4)
"""The kinds of runs: the service's own lines, the container's two streams, and the note about a gap."""

BLOCK_BYTES = 512
_MAX_SPAN_BYTES = 1 << 18
_HEADER = struct.Struct("<8q")
HEADER_BYTES = _HEADER.size


@dataclass(slots=True)
class Totals:
    """Counts of what a log has before some place in it."""

    at_ms: int = 0
    """When the last run before this place was written."""
    offset: int = 0
    lines: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Newlines so far, by kind."""
    printed: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Bytes so far, by kind, as counted in the engine's copy; only stdout and stderr count."""


class IndexedRun(NamedTuple):
    """Bytes of one kind written at the same time, from ``start`` to ``end`` of the log."""

    kind: int
    at_ms: int
    start: int
    end: int
    printed_bytes: int
    index_end: int
    """Where its record ends in its block."""


@record
class Block:
    """A block of an index: the totals before it, and its runs."""

    totals: Totals
    runs: list[IndexedRun]

    @property
    def end(self) -> int:
        """Where the last of its runs ends in the log."""
        return self.runs[-1].end if self.runs else self.totals.offset


def parse_totals(data: bytes) -> Totals | None:
    """Return the totals at the start of a block; ``None`` if they are incomplete."""
    if len(data) < HEADER_BYTES:
        return None
    at_ms, offset, service, stdout, stderr, gaps, out_bytes, err_bytes = _HEADER.unpack_from(data)
    return Totals(at_ms, offset, [service, stdout, stderr, gaps], [0, out_bytes, err_bytes, 0])


def parse_block(data: bytes) -> Block | None:
    """Return the complete part of a block; ``None`` if not even its totals are complete."""
    totals = parse_totals(data)
    if totals is None:
        return None
    runs: list[IndexedRun] = []
    at_ms, start, position = totals.at_ms, totals.offset, HEADER_BYTES
    # No run is empty, so a zero is the padding of a full block.
    while position < len(data) and data[position]:
        try:
            head, position = _read_varint(data, position)
            elapsed_ms, position = _read_varint(data, position)
            surplus_bytes, position = _read_varint(data, position)
        except IndexError:
            break
        end = start + (head >> 2)
        at_ms += _signed(elapsed_ms)
        runs.append(IndexedRun(head & 3, at_ms, start, end, end - start + _signed(surplus_bytes), position))
        start = end
    return Block(totals, runs)


class IndexEncoder:
    """Encodes runs as bytes to append to an index; ``totals`` are those at the end of the log."""

    def __init__(self, totals: Totals, used_bytes: int = 0, block_start: int = 0) -> None:
        """Continue a block with ``used_bytes`` written, which covers the log from ``block_start`` on."""
        self.totals = totals
        self._used_bytes = used_bytes
        self._block_start = block_start

    def encode(self, runs: Iterable[Run], at_ms: int, out: list[bytes]) -> None:
        """Append the records of runs written at ``at_ms``; adjacent runs of one kind become one."""
        kind, printed_bytes, size, lines = -1, 0, 0, 0
        for next_kind, next_printed, text in runs:
            if next_kind != kind:
                if size:
                    self._add(kind, printed_bytes, size, lines, at_ms, out)
                kind, printed_bytes, size, lines = next_kind, 0, 0, 0
            printed_bytes += next_printed
            size += len(text)
            # ``replace`` jumps from newline to newline; ``count`` reads every byte, at seven times the cost.
            lines += len(text) - len(text.replace(b"\n", b""))
        if size:
            self._add(kind, printed_bytes, size, lines, at_ms, out)

    def _add(
        self, kind: int, printed_bytes: int, size: int, lines: int, at_ms: int, out: list[bytes]
    ) -> None:
        totals = self.totals
        record = _record(size << 2 | kind, at_ms - totals.at_ms, printed_bytes - size)
        used = self._used_bytes + len(record)
        if not self._used_bytes or used > BLOCK_BYTES or totals.offset - self._block_start >= _MAX_SPAN_BYTES:
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
def _record(head: int, elapsed_ms: int, surplus_bytes: int) -> bytes:
    """Return a run's record. Cached, because most lines of a log have the same lengths as an earlier one."""
    return _varint(head) + _varint(_zigzag(elapsed_ms)) + _varint(_zigzag(surplus_bytes))


def _varint(number: int) -> bytes:
    """Return a number in LEB128: seven bits per byte, lowest first, the high bit set in all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _zigzag(number: int) -> int:
    """Return a signed number as an unsigned one, small if its absolute value is (zigzag encoding)."""
    return number << 1 if number >= 0 else (-number << 1) - 1


def _signed(number: int) -> int:
    """Reverse ``_zigzag``."""
    return -(number + 1 >> 1) if number & 1 else number >> 1


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the LEB128 number at ``position``, and where it ends; raises ``IndexError`` if it is cut off."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
