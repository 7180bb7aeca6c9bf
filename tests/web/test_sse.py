"""Server-sent events: where a log is cut into events, and the comments that keep a stream alive."""

import itertools
import json
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.logs.reader import Piece
from reactorcide.web import sse


def test_a_silent_stream_gets_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=4)
    monkeypatch.setattr(sse, "monotonic", lambda: next(clock))

    def chunks() -> Generator[bytes, None, None]:
        yield from (b"event", b"", b"", b"", b"", b"event")

    pieces = [chunk for chunk in sse.with_keepalive(chunks()) if chunk]
    assert pieces[0] == pieces[-1] == b"event"
    assert 1 <= len(pieces[1:-1]) < 4
    assert all(chunk.startswith(b":") and chunk.endswith(b"\n\n") for chunk in pieces[1:-1])


@given(
    parts=st.lists(st.sampled_from(["a", "\n", "é", "€", "😀", "x" * 9, "\r", "\u2028", '"']), max_size=40),
    most_bytes=st.integers(min_value=4, max_value=20),
)
def test_chunk_is_split_after_lines_or_between_characters(parts: list[str], most_bytes: int) -> None:
    text = "".join(parts)
    data = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "_MAX_TEXT_BYTES", most_bytes)
        events = list(sse.log_events(3, Piece("stdout", 0, 100 + len(data), data)))
    position, texts = 100, []
    for event in events:
        assert event.endswith(b"\n\n")
        first, second = event[:-2].decode().split("\n")
        texts.append(json.loads(second.removeprefix("data: "))["text"])
        position += len(texts[-1].encode())
        assert first == f"id: 3:{position}"
        assert len(texts[-1].encode()) <= most_bytes
    assert "".join(texts) == text
    assert all(cut.endswith("\n") or "\n" not in cut for cut in texts[:-1])


def test_invalid_text_is_replaced() -> None:
    data = b"\x80" * 200_000
    events = list(sse.log_events(1, Piece("stderr", 0, len(data), data)))
    assert events[-1].startswith(b"id: 1:200000\n")
    assert len(events) == 4
