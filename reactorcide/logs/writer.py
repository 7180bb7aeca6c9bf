"""Writing an attempt's log, with its index, as its container prints it."""

from collections import deque
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from reactorcide import crashpoints
from reactorcide.domain.errors import ObjectStoreError
from reactorcide.domain.jobs import log_index_key, log_key
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import Notifier
from reactorcide.lib.sizes import format_size
from reactorcide.logs import LogStore
from reactorcide.logs.copy import CopyCounter, copied_bytes
from reactorcide.logs.index import (
    BLOCK_BYTES,
    GAP,
    HEADER_BYTES,
    SERVICE,
    STDERR,
    STDOUT,
    Block,
    IndexedRun,
    IndexEncoder,
    Totals,
    parse_block,
)
from reactorcide.logs.lines import LineHolder, Run, split
from reactorcide.logs.masking import Masker

DEFAULT_MOST_BYTES = 256 << 20
TAIL_BYTES = 1 << 20
"""The end of a log that is kept where it is longer than it may be."""
_MOST_TAIL_RUNS = 1 << 15
_BOTH = (STDOUT, STDERR)


class LogWriter:
    """Adds to the log of one attempt and wakes its followers. One thread writes at a time.

    What the container prints goes through a masker for each stream, then its lines are kept whole, then it is
    in the log. The log goes on where it ends. Raises ``ObjectStoreError`` where it cannot be stored; then
    ``restart`` is the way on, for a log with a hole is never an option.
    """

    def __init__(
        self,
        logs: LogStore,
        notifier: Notifier,
        job_id: str,
        attempt: int,
        *,
        secrets: Collection[str] = (),
        most_bytes: int = DEFAULT_MOST_BYTES,
    ) -> None:
        self._logs = logs
        self._notifier = notifier
        self._secrets = secrets
        self._most_bytes = most_bytes
        self._key = log_key(job_id, attempt)
        self._index_key = log_index_key(job_id, attempt)
        # The index first: a log without one was written by a version that kept none.
        with ExitStack() as opened:
            self._index = logs.append(self._index_key)
            opened.callback(self._index.close)
            self._log = logs.append(self._key)
            opened.callback(self._log.close)
            self._torn: tuple[int, int] | None = None
            self._tail: _Tail | None = None
            self._counters = {stream: CopyCounter() for stream in _BOTH}
            self._reset_streams()
            self._skip = [0, 0, 0]
            self._load()
            opened.pop_all()

    @property
    def size_bytes(self) -> int:
        """Bytes of the log so far."""
        return self._encoder.totals.offset

    @property
    def holds(self) -> bool:
        """Tell whether a line that was begun is held; see ``flush``."""
        return self._lines.holds

    @property
    def truncated(self) -> bool:
        """Tell whether something was left out for the log's size."""
        return self._encoder.totals.lines[GAP] > 0 or (
            self._tail is not None and self._tail.missing_bytes > 0
        )

    @property
    def copied_bytes(self) -> int:
        """What the engine's copy of the output takes of its disk, about."""
        totals, tail = self._encoder.totals, self._tail
        size_bytes = sum(totals.printed[stream] for stream in _BOTH)
        lines = sum(totals.lines[stream] for stream in _BOTH)
        if tail is not None:
            size_bytes, lines = size_bytes + tail.added_bytes, lines + tail.added_lines
        return copied_bytes(size_bytes, lines)

    # --- the container's output ----------------------------------------------------------------

    def feed(self, printed: Iterable[tuple[int, bytes]]) -> None:
        """Add what the container printed, as (stream, bytes)."""
        runs: list[Run] = []
        lines, maskers = self._lines, self._maskers
        for stream, data in self._unseen(printed) if any(self._skip) else printed:
            for printed_bytes, text in maskers[stream].feed(data):
                lines.add(stream, printed_bytes, text, runs)
        if lines.holds:
            lines.flush_old(runs)
        self._append(runs)

    def flush(self) -> None:
        """Add the lines that were begun: nothing has come for a moment."""
        runs: list[Run] = []
        self._lines.flush(runs)
        self._append(runs)

    def end_output(self) -> None:
        """Add everything that is held: what was printed up to now, by git or the container, has ended."""
        runs: list[Run] = [(SERVICE, len(text), text) for _, text in self._maskers[SERVICE].end()]
        for stream in _BOTH:
            for printed_bytes, text in self._maskers[stream].end():
                self._lines.add(stream, printed_bytes, text, runs)
        self._lines.end(runs)
        self._reset_streams()
        self._append(runs)

    def restart(self, output_start: int) -> None:
        """Make ready for the container's output to be fed again from its beginning; it begins at that offset.

        What is in the log already is left out then. Only what the service has said since, and what follows
        a gap, is thrown away, for it is said and found anew.
        """
        self._mend()
        if not self._encoder.totals.offset:
            self._log.cut_back(output_start)
            self._index_old()
        number = self._blocks()
        while number > 0:
            number -= 1
            block = self._block(number)
            if block.totals.lines[GAP]:
                continue
            kept = block.runs
            gaps = [place for place, run in enumerate(kept) if run.kind == GAP]
            if gaps:
                kept = kept[: gaps[0]]
            while kept and kept[-1].kind == SERVICE and kept[-1].start >= output_start:
                kept = kept[:-1]
            if kept or block.totals.offset <= output_start:
                self._go_on_after(number, block, kept)
                break
        self._tail = None
        self._reset_streams()
        # What comes of the copy has its length already.
        self._counters.clear()
        self._skip = self._encoder.totals.printed[:3]

    # --- the service's own words ---------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Add what a part of the service printed, such as git; ``end_output`` comes after the last of it."""
        self._append([(SERVICE, len(text), text) for _, text in self._maskers[SERVICE].feed(data)])

    def say(self, sentence: str) -> None:
        """Add a line of the service's own, always on a line of its own."""
        self.end_output()
        start = b"" if self._ends_in_newline else b"\n"
        self.write(start + f"[reactorcide] {sentence}\n".encode())
        self.end_output()

    def end(self) -> None:
        """Add the end of a log that is longer than it may be. Nothing is added afterwards.

        Safe to repeat, also where it has failed.
        """
        self.end_output()
        self._mend()
        if self._tail is None:
            return
        batches: list[tuple[int, list[Run]]] = []
        missing_bytes = self._tail.missing_bytes
        if missing_bytes:
            last = self._encoder.totals.offset - 1
            start = b"" if last < 0 or self._byte(last) == b"\n" else b"\n"
            note = (
                start
                + (
                    f"[reactorcide] {missing_bytes} bytes ({format_size(missing_bytes)}) are missing here: "
                    f"the log is longer than --max-log-bytes ({format_size(self._most_bytes)})\n"
                ).encode()
            )
            batches.append((now_ms(), [(GAP, len(note), note)]))
        batches += [(at_ms, [(kind, printed, text)]) for at_ms, kind, printed, text in self._tail.runs]
        self._write(batches)
        self._tail = None

    def close(self) -> None:
        """Make the log durable; safe to repeat."""
        try:
            self._log.close()
        finally:
            self._index.close()

    # --- writing -------------------------------------------------------------------------------

    def _append(self, runs: list[Run]) -> None:
        if not runs:
            return
        at_ms = now_ms()
        rest = runs
        if self._tail is None:
            rest, room = [], self._most_bytes - TAIL_BYTES - self._encoder.totals.offset
            for place, run in enumerate(runs):
                if room < len(run[2]):
                    runs, rest = runs[:place], runs[place:]
                    break
                room -= len(run[2])
            # Behind a line, so that no character is cut apart.
            if rest and (halves := split(rest[0], rest[0][2].rfind(b"\n", 0, room) + 1)):
                runs, rest = [*runs, halves[0]], [halves[1], *rest[1:]]
            if runs:
                self._write([(at_ms, runs)])
        if rest:
            # With what the head has left, so that nothing is missing of a log that is as long as it may be.
            self._tail = self._tail or _Tail(max(TAIL_BYTES, self._most_bytes - self.size_bytes))
            for kind, printed_bytes, text in rest:
                self._tail.add(at_ms, kind, printed_bytes, text)
        self._ends_in_newline = (rest or runs)[-1][2].endswith(b"\n")

    def _write(self, batches: list[tuple[int, list[Run]]]) -> None:
        self._mend()
        self._index_old()
        sizes = self._log.size_bytes, self._index.size_bytes
        records: list[bytes] = []
        for at_ms, runs in batches:
            self._encoder.encode(self._as_copied(runs), at_ms, records)
        try:
            self._log.write(b"".join([text for _, runs in batches for _, _, text in runs]))
            crashpoints.reached("log-written")
            self._index.write(b"".join(records))
        except ObjectStoreError:
            self._torn = sizes
            # What they hold follows what was just lost.
            self._reset_streams()
            raise
        # Not the job: who waits for its status need not look at the database for every line.
        self._notifier.announce(self._key)

    def _as_copied(self, runs: list[Run]) -> list[Run]:
        """Return runs with as many printed bytes as they are in the engine's copy."""
        counters = self._counters
        return [
            (run[0], run[1] + counters[run[0]].surplus(run[2]), run[2]) if run[0] in counters else run
            for run in runs
        ]

    def _mend(self) -> None:
        """Cut off what was left by a write that failed half-way."""
        if self._torn is not None:
            log_bytes, index_bytes = self._torn
            self._log.cut_back(log_bytes)
            self._index.cut_back(index_bytes)
            self._torn = None
            self._load()

    def _index_old(self) -> None:
        """Take what there is of a log that was begun by a version which kept no index as it is."""
        if self._encoder.totals.offset == 0 < self._log.size_bytes:
            for chunk in self._logs.read(self._key, 0, self._log.size_bytes):
                records: list[bytes] = []
                self._encoder.encode([(SERVICE, len(chunk), chunk)], now_ms(), records)
                self._index.write(b"".join(records))

    def _unseen(self, printed: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return what of the container's output is not in the log yet."""
        unseen = []
        for stream, data in printed:
            seen = min(self._skip[stream], len(data))
            self._skip[stream] -= seen
            if seen < len(data):
                unseen.append((stream, data[seen:]))
        return unseen

    def _reset_streams(self) -> None:
        self._maskers = [Masker(self._secrets) for _ in range(3)]
        self._lines = LineHolder(masked=bool(self._secrets))

    # --- going on with a log that is there -----------------------------------------------------

    def _load(self) -> None:
        """Go on where log and index agree; what one of them has beyond that is cut off."""
        for number in reversed(range(self._blocks())):
            block = parse_block(self._read_block(number))
            if block is None or block.totals.offset > self._log.size_bytes:
                continue
            if number and block.totals.offset != self._block(number - 1).end:
                continue
            self._go_on_after(number, block, [run for run in block.runs if run.end <= self._log.size_bytes])
            return
        self._index.cut_back(0)
        self._encoder = IndexEncoder(Totals(at_ms=now_ms()))
        self._ends_in_newline = True

    def _go_on_after(self, number: int, block: Block, kept: list[IndexedRun]) -> None:
        """Cut log and index back to behind some runs of a block."""
        totals, start = block.totals, block.totals.offset
        end = kept[-1].end if kept else start
        text = b"".join(self._logs.read(self._key, start, end))
        for run in kept:
            totals.lines[run.kind] += text.count(b"\n", run.start - start, run.end - start)
            totals.printed[run.kind] += run.printed_bytes
            totals.at_ms = run.at_ms
        totals.offset = end
        used_bytes = kept[-1].index_end if kept else HEADER_BYTES
        self._index.cut_back(number * BLOCK_BYTES + used_bytes)
        self._log.cut_back(end)
        self._encoder = IndexEncoder(totals, used_bytes, start)
        self._ends_in_newline = end == 0 or self._byte(end - 1) == b"\n"

    def _blocks(self) -> int:
        return -(-self._index.size_bytes // BLOCK_BYTES)

    def _read_block(self, number: int) -> bytes:
        start = number * BLOCK_BYTES
        return b"".join(self._logs.read(self._index_key, start, start + BLOCK_BYTES))

    def _block(self, number: int) -> Block:
        return parse_block(self._read_block(number)) or Block(Totals(), [])

    def _byte(self, offset: int) -> bytes:
        return b"".join(self._logs.read(self._key, offset, offset + 1))


class _Tail:
    """The last runs of a log that is longer than it may be, and how much is missing before them."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.runs: deque[tuple[int, int, int, bytes]] = deque()
        """Each with its time, its kind, its printed bytes and its text."""
        self.added_bytes = self.added_lines = 0
        self.missing_bytes = 0
        self._size_bytes = 0

    def add(self, at_ms: int, kind: int, printed_bytes: int, text: bytes) -> None:
        """Add a run, and let go of the oldest bytes that there is no room for any more."""
        self.runs.append((at_ms, kind, printed_bytes, text))
        self._size_bytes += len(text)
        self.added_bytes += printed_bytes
        self.added_lines += text.count(b"\n")
        while self._size_bytes > self._most_bytes or len(self.runs) > _MOST_TAIL_RUNS:
            at_ms, kind, _, text = self.runs.popleft()
            surplus = min(max(self._size_bytes - self._most_bytes, 0), len(text))
            if len(self.runs) >= _MOST_TAIL_RUNS:
                surplus = len(text)
            self.missing_bytes += surplus
            self._size_bytes -= surplus
            if surplus < len(text):
                self.runs.appendleft((at_ms, kind, len(text) - surplus, text[surplus:]))
