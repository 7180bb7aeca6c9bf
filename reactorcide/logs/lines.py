"""Keeping lines whole where two streams are written to one log."""

from time import monotonic

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
        """Tell whether a line that was begun is held."""
        return bool(self._begun)

    def add(self, stream: int, printed_bytes: int, text: bytes, out: list[Run]) -> None:
        """Add a piece of a stream: to ``out`` as far as its lines are whole, or have been held for long."""
        if stream not in self._begun and text.endswith(b"\n"):
            out.append((stream, printed_bytes, text))
            return
        held = self._begun.pop(stream, [])
        run = stream, printed_bytes, text
        whole_bytes = text.rfind(b"\n") + 1
        is_long = sum(len(piece) for _, _, piece in held) + len(text) > _MOST_HELD_BYTES
        halves = split(run, whole_bytes)
        if halves:
            out += [*held, halves[0]]
            held, run = [], halves[1]
        elif whole_bytes or is_long:
            out += [*held, run]
            return
        if not held:
            self._since[stream] = monotonic()
        held.append(run)
        self._begun[stream] = held

    def flush(self, out: list[Run]) -> None:
        """Add the lines that were begun to ``out``, as far as they have come."""
        for stream in tuple(self._begun):
            self._give_out(stream, out)

    def flush_old(self, out: list[Run]) -> None:
        """Add the lines that have been held for ``HOLD_S`` although there is more to come."""
        begun_before = monotonic() - HOLD_S
        for stream in tuple(self._begun):
            if self._since[stream] < begun_before:
                self._give_out(stream, out)

    def _give_out(self, stream: int, out: list[Run]) -> None:
        out += self._begun.pop(stream)
