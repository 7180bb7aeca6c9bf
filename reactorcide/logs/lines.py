"""Keeping lines whole where two streams are written to one log."""

from dataclasses import dataclass, field
from math import inf
from time import monotonic

from reactorcide.logs.copy import incomplete_bytes

Run = tuple[int, int, bytes]
"""A kind from ``logs.index``, the number of bytes that the container printed, and the text for them."""

HOLD_S = 0.03
"""How long the start of a line waits for its end; short, because it may be a prompt or a progress bar."""
_MAX_HELD_BYTES = 1 << 16
_REPLACED = b"[REDACTED]"


def split(run: Run, size: int, *, masked: bool = True) -> tuple[Run, Run] | None:
    """Split a run after ``size`` bytes; returns ``None`` if that is impossible.

    It is impossible if a secret in it was replaced, as may be if it was ``masked``: then it is unknown after
    which printed byte the cut would be.
    """
    kind, printed_bytes, text = run
    if not 0 < size < len(text) or (masked and (printed_bytes != len(text) or _REPLACED in text)):
        return None
    return (kind, size, text[:size]), (kind, printed_bytes - size, text[size:])


@dataclass(slots=True)
class _PartialLine:
    """The start of a line, in the pieces in which it arrived."""

    since: float
    """Its first piece's arrival by ``time.monotonic``; infinite for a text that no time releases."""
    size: int = 0
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Add the next piece."""
        self.runs.append(run)
        self.size += len(run[2])


class LineHolder:
    """Holds the start of a line until its end arrives; the other stream passes it meanwhile.

    stdout and stderr are two pipes, and a piece of one may end anywhere in a line. The caller calls
    ``flush`` when nothing has arrived for ``HOLD_S``. ``masked`` tells whether pieces were masked before.
    """

    def __init__(self, *, masked: bool = True) -> None:
        self._masked = masked
        self._partial: dict[int, _PartialLine] = {}

    @property
    def holds(self) -> bool:
        """Whether the start of a line is held that ``flush`` would release."""
        return any(line.since < inf for line in self._partial.values())

    def add(self, stream: int, printed_bytes: int, text: bytes, out: list[Run]) -> None:
        """Add a piece of a stream; its complete lines go to ``out``."""
        run = stream, printed_bytes, text
        line = self._partial.get(stream)
        if text.endswith(b"\n"):
            if line is not None:
                out += self._partial.pop(stream).runs
            out.append(run)
            return
        complete_bytes = text.rfind(b"\n") + 1
        if complete_bytes:
            if line is not None:
                out += self._partial.pop(stream).runs
            halves = split(run, complete_bytes, masked=self._masked)
            if halves is None:
                out.append(run)
                return
            out.append(halves[0])
            line, run = None, halves[1]
        if line is None:
            line = self._partial[stream] = _PartialLine(monotonic())
        elif line.since == inf:
            line.since = monotonic()
        line.add(run)
        if line.size > _MAX_HELD_BYTES:
            self._release(stream, out)

    def flush(self, out: list[Run]) -> None:
        """Release all partial lines to ``out``, up to their last complete character."""
        for stream in tuple(self._partial):
            self._release(stream, out)

    def flush_old(self, out: list[Run]) -> None:
        """Release the partial lines that have been held for ``HOLD_S``, while output still arrives."""
        cutoff = monotonic() - HOLD_S
        for stream, line in tuple(self._partial.items()):
            if line.since < cutoff:
                self._release(stream, out)

    def end(self, out: list[Run]) -> None:
        """Release everything: no more will arrive."""
        for line in self._partial.values():
            out += line.runs
        self._partial.clear()

    def _release(self, stream: int, out: list[Run]) -> None:
        held = self._partial.pop(stream).runs
        text = b"".join([text for _, _, text in held])
        run = stream, sum(printed_bytes for _, printed_bytes, _ in held), text
        incomplete = incomplete_bytes(text)
        halves = split(run, len(text) - incomplete, masked=self._masked)
        if halves is None and incomplete < len(text):
            out.append(run)
            return
        if halves is not None:
            out.append(halves[0])
            run = halves[1]
        # The start of a character stays held, however old: it cannot be decoded yet.
        self._partial[stream] = _PartialLine(inf)
        self._partial[stream].add(run)
