"""Reading a log: all of it, by lines, by stream, with times, or following it while it grows."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from reactorcide.domain.errors import ObjectNotFound
from reactorcide.domain.jobs import log_index_key, log_key
from reactorcide.lib.clock import rfc3339
from reactorcide.lib.notifier import LOOK_EVERY_S, Notifier
from reactorcide.logs import LogStore
from reactorcide.logs.index import (
    BLOCK_BYTES,
    GAP,
    HEADER_BYTES,
    SERVICE,
    STDERR,
    STDOUT,
    Block,
    Totals,
    parse_block,
    parse_totals,
)

STREAMS = {"stdout": STDOUT, "stderr": STDERR}
_NAMES = {SERVICE: "service", STDOUT: "stdout", STDERR: "stderr", GAP: "service"}


class Piece(NamedTuple):
    """Bytes of one stream that were written at the same time."""

    stream: str
    at_ms: int
    end: int
    """The offset in the log at which they end."""
    data: bytes


class LogView:
    """A log at one moment; one that does not exist yet is empty. Reads only the parts that are asked for.

    A log without an index was written by a version that had none: its streams and times are unknown.
    """

    def __init__(self, logs: LogStore, job_id: str, attempt: int) -> None:
        self._logs = logs
        self._key = log_key(job_id, attempt)
        self._index_key = log_index_key(job_id, attempt)
        self._blocks = 0
        self.is_indexed = True
        try:
            self._blocks = -(-logs.size(self._index_key) // BLOCK_BYTES)
        except ObjectNotFound:
            self.is_indexed = False
        last = None
        while self._blocks and last is None:
            last = parse_block(self._read_block(self._blocks - 1, BLOCK_BYTES))
            self._blocks -= last is None
        self._last = last or Block(Totals(), [])
        try:
            # After the index, which would otherwise be longer than the log.
            size_bytes = logs.size(self._key)
        except ObjectNotFound:
            size_bytes, self.is_indexed = 0, True
        self.end = min(self._last.end, size_bytes) if self.is_indexed else size_bytes
        """Where the log ends; bytes after it are still being written."""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to ``end``, which are at most the log's end."""
        return self._bytes(self._key, start, end)

    def line_start(self, number: int, kind: int | None = None) -> int:
        """Return the offset after the first ``number`` lines (of one kind), at most the log's end."""
        if number <= 0:
            return 0
        place = 0
        remaining = number
        if self._blocks:
            place = bisect_left(range(self._blocks), number, key=lambda at: self._lines(at, kind)) - 1
            remaining -= self._lines(place, kind)
        for start, text in self._texts(place, kind):
            count = text.count(b"\n")
            if count >= remaining:
                newline = -1
                for _ in range(remaining):
                    newline = text.index(b"\n", newline + 1)
                return start + newline + 1
            remaining -= count
        return self.end

    def line_count(self, kind: int | None = None) -> int:
        """Return the number of lines (of one kind); text after the last newline counts as a line, too."""
        last = self._blocks - 1
        total = self._lines(last, kind) if self._blocks else 0
        total += sum(text.count(b"\n") for _, text in self._texts(max(last, 0), kind))
        return total + (not self._ends_in_newline(kind))

    def tail_start(self, lines: int, kind: int | None = None) -> int:
        """Return the offset at which the last ``lines`` lines (of one kind) begin.

        A line ends with its newline; text after the last newline counts as a line, too.
        """
        if lines == 0:
            return self.end
        return self.line_start(self.line_count(kind) - lines, kind)

    def pieces(self, start: int, end: int, kind: int | None = None) -> Iterator[Piece]:
        """Yield the pieces from offset ``start`` to ``end`` (of one kind), in order."""
        if not self.is_indexed:
            for chunk in self.read(start, end):
                start += len(chunk)
                yield Piece("stdout", 0, start, chunk)
            return
        for place in range(self._block_at(start), self._blocks):
            block = self._block(place)
            runs = [
                run for run in block.runs if run.end > start and run.start < end and kind in (None, run.kind)
            ]
            if runs:
                first = max(start, runs[0].start)
                text = b"".join(self.read(first, min(end, runs[-1].end)))
                for run in runs:
                    piece_end = min(end, run.end)
                    piece = text[max(start, run.start) - first : piece_end - first]
                    yield Piece(_NAMES[run.kind], run.at_ms, piece_end, piece)
            if block.end >= end:
                return

    def begins_line(self, offset: int) -> bool:
        """Return whether a line begins at ``offset``."""
        return offset == 0 or b"".join(self.read(offset - 1, offset)) == b"\n"

    def _ends_in_newline(self, kind: int | None) -> bool:
        if kind is None:
            return self.begins_line(self.end)
        printed = self._last.totals.printed[kind]
        block = self._last
        if printed and not any(run.kind == kind for run in block.runs):
            place = bisect_left(range(self._blocks), printed, key=lambda at: self._totals(at).printed[kind])
            block = self._block(place - 1)
        last = next((run for run in reversed(block.runs) if run.kind == kind), None)
        return last is None or self.begins_line(last.end)

    def _texts(self, place: int, kind: int | None) -> Iterator[tuple[int, bytes]]:
        """Yield the text that a block covers (of one kind), in pieces with their offsets."""
        block = self._block(place) if self._blocks else Block(Totals(), [])
        start, end = (block.totals.offset, min(block.end, self.end)) if self._blocks else (0, self.end)
        if kind is None:
            for chunk in self.read(start, end):
                yield start, chunk
                start += len(chunk)
            return
        text = b"".join(self.read(start, end))
        for run in block.runs:
            if run.kind == kind:
                yield run.start, text[run.start - start : run.end - start]

    def _block_at(self, offset: int) -> int:
        """Return the number of the block that contains ``offset``; mostly one of the last two."""
        for place in (self._blocks - 1, self._blocks - 2):
            if place >= 0 and self._totals(place).offset <= offset:
                return place
        return max(0, bisect_right(range(self._blocks), offset, key=lambda at: self._totals(at).offset) - 1)

    def _lines(self, place: int, kind: int | None) -> int:
        lines = self._totals(place).lines
        return sum(lines) if kind is None else lines[kind]

    def _totals(self, place: int) -> Totals:
        if place == self._blocks - 1:
            return self._last.totals
        return parse_totals(self._read_block(place, HEADER_BYTES)) or Totals()

    def _block(self, place: int) -> Block:
        if place == self._blocks - 1:
            return self._last
        return parse_block(self._read_block(place, BLOCK_BYTES)) or Block(Totals(), [])

    def _read_block(self, place: int, size: int) -> bytes:
        start = place * BLOCK_BYTES
        return b"".join(self._bytes(self._index_key, start, start + size))

    def _bytes(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if start >= end:
            return iter(())
        try:
            return self._logs.read(key, start, end)
        except ObjectNotFound:
            # The log was deleted meanwhile.
            return iter(())


def with_times(pieces: Iterable[Piece], *, begins_line: bool) -> Iterator[bytes]:
    """Yield the text of pieces, each line after the time of its first byte."""
    for piece in pieces:
        stamp = rfc3339(piece.at_ms).encode() + b" "
        text = piece.data[:-1].replace(b"\n", b"\n" + stamp) + piece.data[-1:]
        yield stamp + text if begins_line else text
        begins_line = piece.data.endswith(b"\n")


def follow_log(
    logs: LogStore,
    notifier: Notifier,
    job_id: str,
    attempt: int,
    is_closed: Callable[[], bool],
    *,
    start: int = 0,
) -> Iterator[tuple[LogView, int, int]]:
    """Yield a growing log, as a view and the offsets of its new part (from, to), until it is closed.

    Yields an empty part about once a second while nothing arrives, so that the caller can check whether its
    client is still connected. Ends when the service stops, too.
    """
    position = start
    with notifier.watching(job_id, log_key(job_id, attempt)) as changed:
        while True:
            changed.clear()
            # Before reading: so everything that is written before it closes is read.
            closed = is_closed()
            view = LogView(logs, job_id, attempt)
            if view.end > position:
                yield view, position, view.end
                position = view.end
            if closed or notifier.closed:
                return
            if not changed.wait(LOOK_EVERY_S):
                yield view, position, position
