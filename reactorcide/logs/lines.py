"""Keeping lines whole where two streams are written to one log."""

from math import inf
from time import monotonic

from reactorcide.logs.copy import incomplete_bytes

Run = tuple[int, int, bytes]
"""A kind of ``logs.index``, the bytes that the container printed, and what is written of them."""

HOLD_S = 0.03
"""How long the beginning of a line waits for its end; short, for it may be a prompt or a progress bar."""
_MOST_HELD_BYTES = 1 << 16
_REPLACED = b"[REDACTED]"


def split(run: Run, size: int) -> tuple[Run, Run] | None:
    """Return a run in two, the first of ``size`` bytes, ``None`` where that cannot be.

    That is so where something in it was replaced: nobody knows which printed byte the cut would be at.
    """
    kind, printed_bytes, text = run
    if not 0 < size < len(text) or printed_bytes != len(text) or _REPLACED in text:
        return None
    return (kind, size, text[:size]), (kind, printed_bytes - size, text[size:])


class LineHolder:
    """Holds the beginning of a line until its end comes, and lets the other stream past meanwhile.

    stdout and stderr are two pipes, and what comes of one may end anywhere in a line. Whoever feeds it calls
    ``flush`` when nothing has come for ``HOLD_S``.
    """

    def __init__(self) -> None:
        self._begun: dict[int, list[Run]] = {}
        self._since: dict[int, float] = {}

    @property
    def holds(self) -> bool:
        """Tell whether a line that was begun is held, and ``flush`` would give it out."""
        return any(since < inf for since in self._since.values())

    def add(self, stream: int, printed_bytes: int, text: bytes, out: list[Run]) -> None:
        """Add a piece of a stream: to ``out`` as far as its lines are whole."""
        if stream not in self._begun and text.endswith(b"\n"):
            out.append((stream, printed_bytes, text))
            return
        held = self._begun.pop(stream, [])
        since = self._since.pop(stream, inf)
        run = stream, printed_bytes, text
        whole_bytes = text.rfind(b"\n") + 1
        halves = split(run, whole_bytes)
        if halves:
            out += [*held, halves[0]]
            held, run = [], halves[1]
        elif whole_bytes:
            out += [*held, run]
            return
        self._begun[stream] = [*held, run]
        self._since[stream] = min(since, monotonic()) if held else monotonic()
        if sum(len(piece) for _, _, piece in self._begun[stream]) > _MOST_HELD_BYTES:
            self._give_out(stream, out)

    def flush(self, out: list[Run]) -> None:
        """Add the lines that were begun to ``out``, as far as their characters have come."""
        for stream in tuple(self._begun):
            self._give_out(stream, out)

    def flush_old(self, out: list[Run]) -> None:
        """Add the lines that have been held for ``HOLD_S`` although there is more to come."""
        begun_before = monotonic() - HOLD_S
        for stream in tuple(self._begun):
            if self._since[stream] < begun_before:
                self._give_out(stream, out)

    def end(self, out: list[Run]) -> None:
        """Add everything that is held: no more will come."""
        for held in self._begun.values():
            out += held
        self._begun.clear()
        self._since.clear()

    def _give_out(self, stream: int, out: list[Run]) -> None:
        held = self._begun.pop(stream)
        run = (
            stream,
            sum(printed_bytes for _, printed_bytes, _ in held),
            b"".join([text for _, _, text in held]),
        )
        del self._since[stream]
        kept_bytes = incomplete_bytes(run[2])
        halves = split(run, len(run[2]) - kept_bytes)
        if halves or kept_bytes == len(run[2]):
            # Not by time: it is no text yet, and may never be.
            self._begun[stream] = [halves[1] if halves else run]
            self._since[stream] = inf
            run = halves[0] if halves else (stream, 0, b"")
        if run[2]:
            out.append(run)
