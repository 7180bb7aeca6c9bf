"""Keeping lines whole where two streams are written to one log."""

from dataclasses import dataclass, field
from math import inf
from time import monotonic

from reactorcide.logs.copy import incomplete_bytes

Run = tuple[int, int, bytes]
"""A kind of ``logs.index``, the bytes that the container printed, and what is written of them."""

HOLD_S = 0.03
"""How long the beginning of a line waits for its end; short, for it may be a prompt or a progress bar."""
_MOST_HELD_BYTES = 1 << 16
_REPLACED = b"[REDACTED]"


def split(run: Run, size: int, *, masked: bool = True) -> tuple[Run, Run] | None:
    """Return a run in two, the first of ``size`` bytes, ``None`` where that cannot be.

    That is so where something in it was replaced, as it may be in one that was ``masked``: nobody knows
    which printed byte the cut would be at.
    """
    kind, printed_bytes, text = run
    if not 0 < size < len(text) or (masked and (printed_bytes != len(text) or _REPLACED in text)):
        return None
    return (kind, size, text[:size]), (kind, printed_bytes - size, text[size:])


@dataclass(slots=True)
class _Begun:
    """A line that was begun, in the pieces that it came in."""

    since: float
    """When, by ``time.monotonic``; never, for what is not given out by time."""
    size: int = 0
    runs: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Add what came next."""
        self.runs.append(run)
        self.size += len(run[2])


class LineHolder:
    """Holds the beginning of a line until its end comes, and lets the other stream past meanwhile.

    stdout and stderr are two pipes, and what comes of one may end anywhere in a line. Whoever feeds it calls
    ``flush`` when nothing has come for ``HOLD_S``, and says whether it is ``masked`` before.
    """

    def __init__(self, *, masked: bool = True) -> None:
        self._masked = masked
        self._begun: dict[int, _Begun] = {}

    @property
    def holds(self) -> bool:
        """Tell whether a line that was begun is held, and ``flush`` would give it out."""
        return any(begun.since < inf for begun in self._begun.values())

    def add(self, stream: int, printed_bytes: int, text: bytes, out: list[Run]) -> None:
        """Add a piece of a stream: to ``out`` as far as its lines are whole."""
        run = stream, printed_bytes, text
        begun = self._begun.get(stream)
        if text.endswith(b"\n"):
            if begun is not None:
                out += self._begun.pop(stream).runs
            out.append(run)
            return
        whole_bytes = text.rfind(b"\n") + 1
        if whole_bytes:
            if begun is not None:
                out += self._begun.pop(stream).runs
            halves = split(run, whole_bytes, masked=self._masked)
            if halves is None:
                out.append(run)
                return
            out.append(halves[0])
            begun, run = None, halves[1]
        if begun is None:
            begun = self._begun[stream] = _Begun(monotonic())
        elif begun.since == inf:
            begun.since = monotonic()
        begun.add(run)
        if begun.size > _MOST_HELD_BYTES:
            self._give_out(stream, out)

    def flush(self, out: list[Run]) -> None:
        """Add the lines that were begun to ``out``, as far as their characters have come."""
        for stream in tuple(self._begun):
            self._give_out(stream, out)

    def flush_old(self, out: list[Run]) -> None:
        """Add the lines that have been held for ``HOLD_S`` although there is more to come."""
        begun_before = monotonic() - HOLD_S
        for stream, begun in tuple(self._begun.items()):
            if begun.since < begun_before:
                self._give_out(stream, out)

    def end(self, out: list[Run]) -> None:
        """Add everything that is held: no more will come."""
        for begun in self._begun.values():
            out += begun.runs
        self._begun.clear()

    def _give_out(self, stream: int, out: list[Run]) -> None:
        held = self._begun.pop(stream).runs
        text = b"".join([text for _, _, text in held])
        run = stream, sum(printed_bytes for _, printed_bytes, _ in held), text
        kept_bytes = incomplete_bytes(text)
        halves = split(run, len(text) - kept_bytes, masked=self._masked)
        if halves is None and kept_bytes < len(text):
            out.append(run)
            return
        if halves is not None:
            out.append(halves[0])
            run = halves[1]
        # The beginning of a character is no text yet, and may never be.
        self._begun[stream] = _Begun(inf)
        self._begun[stream].add(run)
