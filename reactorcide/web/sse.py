"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from time import monotonic

from reactorcide.lib.clock import rfc3339
from reactorcide.logs.reader import Piece

MIMETYPE = "text/event-stream"
_KEEPALIVE_S = 10.0
_MAX_TEXT_BYTES = 1 << 16


def event(data: object, *, event_id: object = None, name: str | None = None) -> bytes:
    """Return one event, with its data as JSON, which has no line ends."""
    lines = [f"event: {name}"] if name else []
    lines += [f"id: {event_id}"] if event_id is not None else []
    return "\n".join([*lines, f"data: {json.dumps(data)}", "", ""]).encode()


def mark(event_id: object) -> bytes:
    """Return an id-only event, so that a client that reconnects early resumes correctly."""
    return f"id: {event_id}\n\n".encode()


def with_keepalive(chunks: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """Yield ``chunks``, with a comment after ten seconds without data."""
    sent_at = monotonic()
    with closing(chunks):
        for chunk in chunks:
            if chunk or monotonic() - sent_at < _KEEPALIVE_S:
                sent_at = monotonic() if chunk else sent_at
                yield chunk
            else:
                sent_at = monotonic()
                yield b": nothing new\n\n"


def log_events(attempt: int, piece: Piece) -> Iterator[bytes]:
    """Yield a piece of a log as events; the id of each is the place in the log at which it ends."""
    begin = piece.end - len(piece.data)
    position = 0
    while position < len(piece.data):
        end = _cut(piece.data, position)
        text = piece.data[position:end].decode(errors="replace")
        data = {"t": rfc3339(piece.at_ms), "stream": piece.stream, "text": text}
        yield event(data, event_id=f"{attempt}:{begin + end}")
        position = end


def _cut(data: bytes, start: int) -> int:
    """Return where an event's text ends: after a line, or at least not within a character."""
    end = start + _MAX_TEXT_BYTES
    if end >= len(data):
        return len(data)
    line_end = data.rfind(b"\n", start, end) + 1
    if line_end:
        return line_end
    # A character has at most three bytes after its first, and they are marked.
    return next((at for at in range(end, end - 4, -1) if data[at] & 0xC0 != 0x80), end)
