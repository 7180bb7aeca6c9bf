"""Writing, reading, tailing and following a log."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.domain.jobs import log_key
from reactorcide.logs import reader
from reactorcide.logs.reader import follow_log, read_log, tail_offset
from reactorcide.logs.writer import LogWriter
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.signals import Signals

KEY = log_key("job", 1)


@pytest.fixture
def objects(tmp_path: Path) -> FilesystemObjectStore:
    return FilesystemObjectStore(tmp_path)


def tail(objects: FilesystemObjectStore, lines: int) -> bytes:
    return b"".join(read_log(objects, KEY, start=tail_offset(objects, KEY, lines)))


@settings(max_examples=300)
@given(
    text=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r", b"0123456789" * 3])).map(b"".join),
    lines=st.integers(min_value=0, max_value=12),
    block_bytes=st.integers(min_value=1, max_value=9),
)
def test_the_tail_is_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, lines: int, block_bytes: int
) -> None:
    objects = FilesystemObjectStore(tmp_path_factory.mktemp("tail"))
    objects.put(KEY, [text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BLOCK_BYTES", block_bytes)
        found = tail(objects, lines)
    all_lines = text.split(b"\n")
    pieces = [line + b"\n" for line in all_lines[:-1]] + ([all_lines[-1]] if all_lines[-1] else [])
    assert found == b"".join(pieces[len(pieces) - lines :] if lines < len(pieces) else pieces)


def test_a_log_that_has_not_begun_is_empty(objects: FilesystemObjectStore) -> None:
    assert b"".join(read_log(objects, KEY)) == b""
    assert tail_offset(objects, KEY, 5) == 0


def test_the_service_speaks_on_lines_of_its_own(objects: FilesystemObjectStore) -> None:
    log = LogWriter(objects, Signals(), "job", 1)
    log.say("pulling")
    log.write(b"no newline")
    log.say("timed out after 5 s")
    log.close()
    assert b"".join(read_log(objects, KEY)) == (
        b"[reactorcide] pulling\nno newline\n[reactorcide] timed out after 5 s\n"
    )


def test_a_follower_gets_every_byte_once_and_ends_with_the_log(objects: FilesystemObjectStore) -> None:
    signals = Signals()
    closed = threading.Event()
    seen: list[bytes] = []
    caught_up = threading.Event()

    def follow() -> None:
        for chunk in follow_log(objects, signals, "job", KEY, closed.is_set):
            seen.append(chunk)
            caught_up.set()

    thread = threading.Thread(target=follow)
    thread.start()
    log = LogWriter(objects, signals, "job", 1)
    for number in range(200):
        log.write(b"%d\n" % number)
        if number == 0:
            # The first line arrives while the log is open: that is what following means.
            assert caught_up.wait(30)
    log.close()
    closed.set()
    signals.announce("job")
    thread.join(30)
    assert b"".join(seen) == b"".join(b"%d\n" % number for number in range(200))


def test_a_follower_ends_when_the_service_stops(objects: FilesystemObjectStore) -> None:
    signals = Signals()
    objects.put(KEY, [b"so far\n"])
    thread_seen: list[bytes] = []

    def follow() -> None:
        thread_seen.extend(follow_log(objects, signals, "job", KEY, lambda: False))

    thread = threading.Thread(target=follow)
    thread.start()
    signals.close()
    thread.join(30)
    assert not thread.is_alive()
    assert b"".join(thread_seen) == b"so far\n"


def test_a_follower_is_asked_now_and_then_whether_anybody_listens(objects: FilesystemObjectStore) -> None:
    chunks = follow_log(objects, Signals(), "job", KEY, lambda: False)
    assert next(chunks) == b""
    chunks.close()  # type: ignore[attr-defined]  # a generator
