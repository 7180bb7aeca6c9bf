"""Writing the log of an attempt, with its index, while its container prints."""

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

DEFAULT_MAX_BYTES = 256 << 20
TAIL_BYTES = 1 << 20
"""The length of the end that is kept of a log that is longer than allowed."""
_MAX_TAIL_RUNS = 1 << 15
_BOTH = (STDOUT, STDERR)


class LogWriter:
    """Appends to the log of one attempt and wakes its followers. One thread writes at a time.

    Output passes a masker for each stream, and a holder that keeps lines whole; then it is appended to the
    log. An existing log is continued. Raises ``ObjectStoreError`` if the log cannot be stored; call
    ``restart`` then, so that the log gets no gap.
    """

    def __init__(
        self,
        logs: LogStore,
        notifier: Notifier,
        job_id: str,
        attempt: int,
        *,
        secrets: Collection[str] = (),
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._logs = logs
        self._notifier = notifier
        self._secrets = secrets
        self._max_bytes = max_bytes
        self._key = log_key(job_id, attempt)
        self._index_key = log_index_key(job_id, attempt)
        # The index first: a log without one was written by a version that had none.
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
        """The length of the log so far."""
        return self._encoder.totals.offset

    @property
    def holds(self) -> bool:
        """Whether the start of a line is held; see ``flush``."""
        return self._lines.holds

    @property
    def truncated(self) -> bool:
        """Whether a part of the log was left out because of its size."""
        return self._encoder.totals.lines[GAP] > 0 or (
            self._tail is not None and self._tail.missing_bytes > 0
        )

    @property
    def copied_bytes(self) -> int:
        """About how much of the engine's disk its copy of the output takes."""
        totals, tail = self._encoder.totals, self._tail
        size_bytes = sum(totals.printed[stream] for stream in _BOTH)
        lines = sum(totals.lines[stream] for stream in _BOTH)
        if tail is not None:
            size_bytes, lines = size_bytes + tail.added_bytes, lines + tail.added_lines
        return copied_bytes(size_bytes, lines)

    # --- the container's output ----------------------------------------------------------------

    def feed(self, printed: Iterable[tuple[int, bytes]]) -> None:
        """Append the container's output, as (stream, bytes)."""
        runs: list[Run] = []
        lines, maskers = self._lines, self._maskers
        for stream, data in self._unseen(printed) if any(self._skip) else printed:
            for printed_bytes, text in maskers[stream].feed(data):
                lines.add(stream, printed_bytes, text, runs)
        if lines.holds:
            lines.flush_old(runs)
        self._append(runs)

    def flush(self) -> None:
        """Append the lines whose start is held, because no output has arrived for a moment."""
        runs: list[Run] = []
        self._lines.flush(runs)
        self._append(runs)

    def end_output(self) -> None:
        """Append everything that is held: the output of git or of the container has ended."""
        runs: list[Run] = [(SERVICE, len(text), text) for _, text in self._maskers[SERVICE].end()]
        for stream in _BOTH:
            for printed_bytes, text in self._maskers[stream].end():
                self._lines.add(stream, printed_bytes, text, runs)
        self._lines.end(runs)
        self._reset_streams()
        self._append(runs)

    def restart(self, output_start: int) -> None:
        """Prepare for the container's whole output to be fed again; its first byte is at ``output_start``.

        Bytes that are in the log already are skipped then. Removed are the service's own lines after
        ``output_start``, and all that follows a gap, because both are written again.
        """
        self._repair()
        if not self._encoder.totals.offset:
            self._log.cut_back(output_start)
            self._index_old_log()
        number = self._blocks()
        while number > 0:
            number -= 1
            block = self._block(number)
            if block.totals.lines[GAP]:
                continue
            runs = block.runs
            gaps = [place for place, run in enumerate(runs) if run.kind == GAP]
            if gaps:
                runs = runs[: gaps[0]]
            while runs and runs[-1].kind == SERVICE and runs[-1].start >= output_start:
                runs = runs[:-1]
            if runs or block.totals.offset <= output_start:
                self._resume_after(number, block, runs)
                break
        self._tail = None
        self._reset_streams()
        # Bytes from the copy have its length already.
        self._counters.clear()
        self._skip = self._encoder.totals.printed[:3]

    # --- the service's own lines ---------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Append the output of a part of the service, such as git; call ``end_output`` after the last."""
        self._append([(SERVICE, len(text), text) for _, text in self._maskers[SERVICE].feed(data)])

    def say(self, sentence: str) -> None:
        """Append one of the service's own lines; it always begins on a new line.

        Safe to repeat after an error, unless output was held.
        """
        self.end_output()
        start = b"" if self._ends_in_newline else b"\n"
        text = self._maskers[SERVICE].whole(start + f"[reactorcide] {sentence}\n".encode())
        self._reset_streams()
        # In one write, of which nothing stays if it fails.
        self._append([(SERVICE, len(text), text)])

    def end(self) -> None:
        """Append the end of a log that is longer than allowed. Nothing is appended afterwards.

        Safe to repeat, also after an error.
        """
        self.end_output()
        self._repair()
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
                    f"the log is longer than --max-log-bytes ({format_size(self._max_bytes)})\n"
                ).encode()
            )
            batches.append((now_ms(), [(GAP, len(note), note)]))
        batches += [(at_ms, [(kind, printed, text)]) for at_ms, kind, printed, text in self._tail.runs]
        self._write(batches)
        self._tail = None

    def close(self) -> None:
        """Make the log durable and close it; safe to repeat, also after a ``LogUnavailable``."""
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
            rest, room = [], self._max_bytes - TAIL_BYTES - self._encoder.totals.offset
            for place, run in enumerate(runs):
                if room < len(run[2]):
                    runs, rest = runs[:place], runs[place:]
                    break
                room -= len(run[2])
            # After a line, so that no character is split.
            if rest and (halves := split(rest[0], rest[0][2].rfind(b"\n", 0, room) + 1)):
                runs, rest = [*runs, halves[0]], [halves[1], *rest[1:]]
            if runs:
                self._write([(at_ms, runs)])
        if rest:
            # With the room that the head has left, so that a log of exactly the allowed length has no gap.
            self._tail = self._tail or _Tail(max(TAIL_BYTES, self._max_bytes - self.size_bytes))
            for kind, printed_bytes, text in rest:
                self._tail.add(at_ms, kind, printed_bytes, text)
        self._ends_in_newline = (rest or runs)[-1][2].endswith(b"\n")

    def _write(self, batches: list[tuple[int, list[Run]]]) -> None:
        self._repair()
        self._index_old_log()
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
            # Their text follows the text that was just lost.
            self._reset_streams()
            raise
        # Not the job's key: those who wait for its status would query the database for every line.
        self._notifier.announce(self._key)

    def _as_copied(self, runs: list[Run]) -> list[Run]:
        """Return runs with their printed bytes as counted in the engine's copy."""
        counters = self._counters
        return [
            (run[0], run[1] + counters[run[0]].surplus(run[2]), run[2]) if run[0] in counters else run
            for run in runs
        ]

    def _repair(self) -> None:
        """Cut off the remains of a write that failed half-way."""
        if self._torn is not None:
            log_bytes, index_bytes = self._torn
            self._log.cut_back(log_bytes)
            self._index.cut_back(index_bytes)
            self._load()
            self._torn = None

    def _index_old_log(self) -> None:
        """Index the existing part of a log that a version without an index started."""
        if self._encoder.totals.offset == 0 < self._log.size_bytes:
            for chunk in self._logs.read(self._key, 0, self._log.size_bytes):
                records: list[bytes] = []
                self._encoder.encode([(SERVICE, len(chunk), chunk)], now_ms(), records)
                self._index.write(b"".join(records))

    def _unseen(self, printed: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return the part of the container's output that is not in the log yet."""
        unseen = []
        for stream, data in printed:
            skipped = min(self._skip[stream], len(data))
            self._skip[stream] -= skipped
            if skipped < len(data):
                unseen.append((stream, data[skipped:]))
        return unseen

    def _reset_streams(self) -> None:
        self._maskers = [Masker(self._secrets) for _ in range(3)]
        self._lines = LineHolder(masked=bool(self._secrets))

    # --- continuing an existing log ------------------------------------------------------------

    def _load(self) -> None:
        """Continue where log and index agree; cut off what only one of them has."""
        for number in reversed(range(self._blocks())):
            block = parse_block(self._read_block(number))
            if block is None or block.totals.offset > self._log.size_bytes:
                continue
            if number and block.totals.offset != self._block(number - 1).end:
                continue
            self._resume_after(number, block, [run for run in block.runs if run.end <= self._log.size_bytes])
            return
        self._index.cut_back(0)
        self._encoder = IndexEncoder(Totals(at_ms=now_ms()))
        self._ends_in_newline = True

    def _resume_after(self, number: int, block: Block, runs: list[IndexedRun]) -> None:
        """Cut log and index back to the end of these first runs of a block."""
        totals, start = block.totals, block.totals.offset
        end = runs[-1].end if runs else start
        text = b"".join(self._logs.read(self._key, start, end))
        for run in runs:
            totals.lines[run.kind] += text.count(b"\n", run.start - start, run.end - start)
            totals.printed[run.kind] += run.printed_bytes
            totals.at_ms = run.at_ms
        totals.offset = end
        used_bytes = runs[-1].index_end if runs else HEADER_BYTES
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
    """The last runs of a log that is longer than allowed, and how much is missing before them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.runs: deque[tuple[int, int, int, bytes]] = deque()
        """Each with its time, its kind, its printed bytes and its text."""
        self.added_bytes = self.added_lines = 0
        self.missing_bytes = 0
        self._size_bytes = 0

    def add(self, at_ms: int, kind: int, printed_bytes: int, text: bytes) -> None:
        """Add a run, and drop the oldest bytes for which there is no room."""
        self.runs.append((at_ms, kind, printed_bytes, text))
        self._size_bytes += len(text)
        self.added_bytes += printed_bytes
        self.added_lines += text.count(b"\n")
        while self._size_bytes > self._max_bytes or len(self.runs) > _MAX_TAIL_RUNS:
            at_ms, kind, _, text = self.runs.popleft()
            surplus = min(max(self._size_bytes - self._max_bytes, 0), len(text))
            if len(self.runs) >= _MAX_TAIL_RUNS:
                surplus = len(text)
            self.missing_bytes += surplus
            self._size_bytes -= surplus
            if surplus < len(text):
                self.runs.appendleft((at_ms, kind, len(text) - surplus, text[surplus:]))
