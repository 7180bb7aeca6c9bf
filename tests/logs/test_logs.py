"""Writing, reading and following a log, whatever it holds and wherever the writer dies."""

import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.domain.errors import ObjectStoreError
from reactorcide.domain.jobs import log_index_key, log_key
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs import index, lines, writer
from reactorcide.logs.copy import CopyCounter, copied_bytes
from reactorcide.logs.index import STDERR, STDOUT
from reactorcide.logs.lines import LineHolder, Run
from reactorcide.logs.local import LocalLogStore
from reactorcide.logs.reader import LogView, Piece, follow_log, with_times
from reactorcide.logs.writer import LogWriter
from reactorcide.objects.memory import MemoryObjectStore
from tests.support.descriptors import few_descriptors, open_descriptors

KEY = log_key("job", 1)
INDEX_KEY = log_index_key("job", 1)
MIB = 1 << 20
KINDS = {"stdout": STDOUT, "stderr": STDERR}


@pytest.fixture
def logs(tmp_path: Path) -> LocalLogStore:
    return LocalLogStore(tmp_path, MemoryObjectStore())


@pytest.fixture
def log(logs: LocalLogStore) -> Iterator[LogWriter]:
    log = new_log(logs)
    yield log
    log.close()


def new_log(logs: LocalLogStore, **options: Any) -> LogWriter:
    return LogWriter(logs, LocalNotifier(), "job", 1, **options)


def read(logs: LocalLogStore) -> bytes:
    view = LogView(logs, "job", 1)
    return b"".join(view.read(0, view.end))


def pieces(logs: LocalLogStore, kind: int | None = None) -> list[Piece]:
    view = LogView(logs, "job", 1)
    return list(view.pieces(0, view.end, kind))


def own(logs: LocalLogStore, stream: str) -> bytes:
    """Return what is in the log of one stream."""
    return b"".join(piece.data for piece in pieces(logs) if piece.stream == stream)


def as_lines(text: bytes) -> list[bytes]:
    """Return lines with their ends; what follows the last one counts as a line, too."""
    with_ends = [line + b"\n" for line in text.split(b"\n")]
    with_ends[-1] = with_ends[-1][:-1]
    return with_ends if with_ends[-1] else with_ends[:-1]


class SmallBlocks:
    """Blocks that cover little, so that a short log has many."""

    def __enter__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(index, "_MAX_SPAN_BYTES", 20)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


TEXT = st.lists(
    st.sampled_from([b"\n", b"a", b"bc", b"\r", b"\xff\x00", "é€".encode(), b"0123456789" * 3])
).map(b"".join)
PRINTED = st.lists(st.tuples(st.sampled_from([1, 2]), TEXT.filter(bool)), max_size=30)


# --- lines ---------------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(1), st.lists(st.sampled_from(b"ab\n"), max_size=40).map(bytes)),
            st.tuples(st.just(2), st.lists(st.sampled_from(b"xy\n"), max_size=40).map(bytes)),
        )
    )
)
def test_lines_stay_whole_and_nothing_is_lost(printed: list[tuple[int, bytes]]) -> None:
    holder = LineHolder()
    out: list[Run] = []
    for stream, data in printed:
        holder.add(stream, len(data), data, out)
    text = b"".join(data for _, _, data in out)
    # A line is of one stream alone, however the two came.
    assert all(not (set(line) & set(b"ab") and set(line) & set(b"xy")) for line in text.split(b"\n")[:-1])
    assert not text or text.endswith(b"\n")
    holder.end(out)
    assert not holder.holds
    for number in (1, 2):
        expected = b"".join(data for stream, data in printed if stream == number)
        assert b"".join(data for stream, _, data in out if stream == number) == expected
        assert sum(printed_bytes for stream, printed_bytes, _ in out if stream == number) == len(expected)


def test_long_line_is_not_buffered() -> None:
    out: list[Run] = []
    LineHolder().add(1, 100_000, b"x" * 100_000, out)
    assert out == [(1, 100_000, b"x" * 100_000)]


def test_replacement_text_is_not_split() -> None:
    out: list[Run] = []
    holder = LineHolder()
    holder.add(1, 30, b"a\n[REDACTED]\nrest", out)
    assert out == [(1, 30, b"a\n[REDACTED]\nrest")]
    assert not holder.holds


def test_partial_line_is_written_after_a_short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(lines, "monotonic", lambda: next(clock) * lines.HOLD_S)
    out: list[Run] = []
    holder = LineHolder()
    holder.add(2, 4, b"name", out)
    holder.flush_old(out)
    assert out == []
    # There is more of the other stream all the time.
    holder.add(1, 2, b"x\n", out)
    holder.flush_old(out)
    assert out == [(1, 2, b"x\n"), (2, 4, b"name")]


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60)
@given(printed=PRINTED, first=st.integers(0, 12), count=st.integers(0, 12))
def test_reader_returns_lines_and_streams(
    tmp_path_factory: pytest.TempPathFactory, printed: list[tuple[int, bytes]], first: int, count: int
) -> None:
    logs = LocalLogStore(tmp_path_factory.mktemp("log"), MemoryObjectStore())
    with SmallBlocks():
        log = new_log(logs)
        for one in printed:
            log.feed([one])
            log.flush()
        log.close()
    view = LogView(logs, "job", 1)
    whole = read(logs)
    assert whole == stored(logs, KEY)
    for stream, number in KINDS.items():
        text = b"".join(data for kind, data in printed if kind == number)
        assert own(logs, stream) == text
        assert b"".join(piece.data for piece in pieces(logs, number)) == text
        start, end = view.line_start(first, number), view.line_start(first + count, number)
        content = b"".join(piece.data for piece in view.pieces(start, end, number))
        assert content == b"".join(as_lines(text)[first : first + count])
        tail = view.pieces(view.tail_start(count, number), view.end, number)
        assert b"".join(piece.data for piece in tail) == b"".join(last(as_lines(text), count))
    start, end = view.line_start(first), view.line_start(first + count)
    assert b"".join(view.read(start, end)) == b"".join(as_lines(whole)[first : first + count])
    assert b"".join(view.read(view.tail_start(count), view.end)) == b"".join(last(as_lines(whole), count))


def last(all_lines: list[bytes], count: int) -> list[bytes]:
    return all_lines[max(0, len(all_lines) - count) :]


def stored(logs: LocalLogStore, key: str) -> bytes:
    return b"".join(logs.read(key))


def test_missing_log_is_empty(logs: LocalLogStore) -> None:
    view = LogView(logs, "job", 1)
    assert (view.end, view.tail_start(5), view.line_start(3), list(view.pieces(0, 0))) == (0, 0, 0, [])
    assert view.tail_start(5, STDERR) == 0


def test_log_without_an_index_is_read(logs: LocalLogStore) -> None:
    logs._objects.put(KEY, [b"one\ntwo\nthree"])
    view = LogView(logs, "job", 1)
    assert not view.is_indexed
    assert b"".join(view.read(view.tail_start(2), view.end)) == b"two\nthree"
    assert b"".join(view.read(view.line_start(1), view.line_start(2))) == b"two\n"
    assert [piece.data for piece in view.pieces(4, view.end)] == [b"two\nthree"]


def test_each_line_has_the_time_of_its_first_byte(
    logs: LocalLogStore, log: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock is put back in between, which must not hide when a line came.
    for at_ms, data in ((1_000, b"a\nb\nc"), (2_000, b"d\n"), (1_500, b"e")):
        monkeypatch.setattr(writer, "now_ms", lambda at_ms=at_ms: at_ms)
        log.feed([(1, data)])
        log.flush()
    assert b"".join(with_times(pieces(logs), begins_line=True)) == (
        b"1970-01-01T00:00:01.000Z a\n1970-01-01T00:00:01.000Z b\n1970-01-01T00:00:01.000Z cd\n"
        b"1970-01-01T00:00:01.500Z e"
    )


def test_messages_of_the_service_are_separate_lines(logs: LocalLogStore, log: LogWriter) -> None:
    log.say("pulling")
    log.feed([(1, b"no newline")])
    log.say("timed out after 5 s")
    assert read(logs) == b"[reactorcide] pulling\nno newline\n[reactorcide] timed out after 5 s\n"
    assert own(logs, "stdout") == b"no newline"


class CountingStore(LocalLogStore):
    """Counts the bytes that are read."""

    bytes_read = 0

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        for chunk in super().read(key, start, end):
            self.bytes_read += len(chunk)
            yield chunk


def test_range_of_a_long_log_is_read_by_the_index(tmp_path: Path) -> None:
    logs = CountingStore(tmp_path, MemoryObjectStore())
    log = new_log(logs)
    line = b"x" * 99 + b"\n"
    # As fast output arrives, with a word of stderr now and then; 100 MB.
    for number in range(400):
        log.feed([(1, line * 2500)])
        if number % 100 == 0:
            log.feed([(2, b"error %d\n" % number)])
    log.close()
    size_bytes = logs.size(KEY)
    assert logs.size(INDEX_KEY) < size_bytes / 400
    view = LogView(logs, "job", 1)
    looks: list[tuple[Callable[[], Iterator[bytes]], bytes]] = [
        (lambda: view.read(view.tail_start(10), view.end), line * 10),
        (lambda: view.read(view.line_start(500_000), view.line_start(500_002)), line * 2),
        (lambda: texts(view, view.tail_start(1, STDERR), STDERR), b"error 300\n"),
        (lambda: texts(view, view.line_start(2, STDERR), STDERR), b"error 200\nerror 300\n"),
        (lambda: view.read(size_bytes - 100, size_bytes), line),
    ]
    for look, expected in looks:
        logs.bytes_read = 0
        assert b"".join(look()) == expected
        assert logs.bytes_read < 2.5 * MIB


def texts(view: LogView, start: int, kind: int) -> Iterator[bytes]:
    return (piece.data for piece in view.pieces(start, view.end, kind))


def test_index_of_alternating_streams_is_small(logs: LocalLogStore, log: LogWriter) -> None:
    turns = [(1, b"out %040d\n" % 0), (2, b"err %040d\n" % 0)] * 10_000
    log.feed(turns)
    assert logs.size(INDEX_KEY) < 4.7 * len(turns)
    assert len(pieces(logs)) == len(turns)


# --- the engine's copy ---------------------------------------------------------------------------


def copied(text: bytes) -> bytes:
    """Return what the engine's copy has of the output of one stream: valid text, in pieces of 16 KiB."""
    copy = b""
    for line in text.splitlines(keepends=True) if b"\n" in text else [text]:
        for start in range(0, len(line), 1 << 14):
            piece = line[start : start + (1 << 14)].decode(errors="surrogateescape")
            copy += re.sub("[\udc80-\udcff]", "\ufffd", piece).encode()
    return copy


@given(
    pieces=st.lists(
        st.sampled_from([b"a", b"\n", "é€😀".encode(), b"\xff", b"\xe2\x82", b"\x80", b"x" * 9000]),
        max_size=12,
    )
)
def test_the_length_of_the_engines_copy_is_known(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    counter = CopyCounter()
    text_lines = [line + b"\n" for line in text.split(b"\n")]
    text_lines[-1] = text_lines[-1][:-1]
    assert len(text) + sum(map(counter.surplus, text_lines)) == len(
        b"".join(copied(line) for line in text_lines)
    )


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_character_is_not_split(character: str) -> None:
    data = b"x" + character.encode()
    for size in range(2, len(data)):
        out: list[Run] = []
        holder = LineHolder()
        holder.add(1, size, data[:size], out)
        holder.flush(out)
        # An incomplete character is no reason to flush again.
        assert (out, holder.holds) == ([(1, 1, b"x")], False)
        holder.add(1, len(data) - size, data[size:], out)
        holder.flush(out)
        assert (b"".join(text for _, _, text in out), holder.holds) == (data, False)


# --- a writer that dies --------------------------------------------------------------------------


def fed(log: LogWriter, printed: list[tuple[int, bytes]]) -> None:
    for one in printed:
        log.feed([one])


@pytest.mark.slow
@settings(max_examples=100)
@given(
    printed=PRINTED,
    crash_after=st.integers(0, 30),
    log_cut=st.integers(0, 40),
    index_cut=st.integers(0, 40),
    has_note=st.booleans(),
    data=st.data(),
)
def test_recovery_completes_each_stream_after_any_crash(
    tmp_path_factory: pytest.TempPathFactory,
    printed: list[tuple[int, bytes]],
    crash_after: int,
    log_cut: int,
    index_cut: int,
    has_note: bool,
    data: st.DataObject,
) -> None:
    directory = tmp_path_factory.mktemp("log")
    logs = LocalLogStore(directory, MemoryObjectStore())
    with SmallBlocks():
        log = new_log(logs)
        log.say("pulling")
        output_start = log.size_bytes
        fed(log, printed[:crash_after])
        log.flush()
        before = read(logs)
        if has_note:
            log.say("exit code 3")
        log.close()
        # Bytes of the log that are not in the index any more, or an index that is ahead of the log.
        for key, cut in ((KEY, log_cut), (INDEX_KEY, index_cut)):
            path = logs.path(key)
            path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut)])
        if not index_cut and not log_cut:
            with logs.path(KEY).open("ab") as file:
                file.write(b"of a write that was not finished")
        log = new_log(logs)
        if log.size_bytes < output_start:
            return
        log.restart(output_start)
        if not (log_cut or index_cut):
            # What somebody has read stays where it is.
            assert read(logs) == before
        # The engine tells the two streams in another order than before.
        again = data.draw(st.permutations([1, 2]))
        streams = {number: b"".join(text for kind, text in printed if kind == number) for number in (1, 2)}
        fed(log, [(number, copied(streams[number])) for number in again if streams[number]])
        log.say("exit code 3")
        log.close()
    # What was there stays as it is; of what comes of the engine's copy the garbage is replaced.
    assert copied(own(logs, "stdout")) == copied(streams[1])
    assert copied(own(logs, "stderr")) == copied(streams[2])
    whole = read(logs)
    assert whole.startswith(b"[reactorcide] pulling\n")
    assert whole.count(b"[reactorcide] exit code 3\n") == 1
    assert whole == stored(logs, KEY)
    view = LogView(logs, "job", 1)
    assert view.line_start(1) == output_start


def test_failed_write_leaves_no_gap(
    logs: LocalLogStore, log: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.feed([(1, b"one\n")])
    appender = log._index
    write = appender.write

    def fail(data: bytes) -> None:
        write(data[:2])
        raise ObjectStoreError("the disk is full")

    for broken in (log._log, log._index):
        original = broken.write
        monkeypatch.setattr(broken, "write", fail)
        with pytest.raises(ObjectStoreError):
            log.feed([(1, b"two\n"), (2, b"begun")])
        assert read(logs) == b"one\n"
        monkeypatch.setattr(broken, "write", original)
        write = log._log.write
    assert not log.holds
    log.restart(0)
    log.feed([(1, b"one\ntwo\n")])
    assert read(logs) == b"one\ntwo\n"


def test_a_log_of_a_version_without_index_can_be_continued(logs: LocalLogStore) -> None:
    logs._objects.put(KEY, [b"[reactorcide] pulling\nhal"])
    log = new_log(logs)
    log.restart(22)
    log.feed([(1, b"half\n")])
    log.close()
    assert read(logs) == b"[reactorcide] pulling\nhalf\n"
    assert own(logs, "service") == b"[reactorcide] pulling\n"


# --- a log that is too long ----------------------------------------------------------------------


def parts_of_long(logs: LocalLogStore) -> tuple[bytes, int, bytes]:
    """Return the head of a log that was too long, how many bytes its note counts as missing, and the tail."""
    content = read(logs)
    note = next(piece for piece in pieces(logs) if b"--max-log-bytes (4 MiB)" in piece.data)
    missing = int(note.data.strip().split()[1])
    return content[: note.end - len(note.data)], missing, content[note.end :]


def test_long_log_has_head_and_tail(logs: LocalLogStore) -> None:
    log = new_log(logs, max_bytes=4 * MIB)
    whole = b"".join(b"%09d\n" % number for number in range(MIB))
    for start in range(0, len(whole), 100_000):
        log.feed([(1, whole[start : start + 100_000])])
    assert log.copied_bytes == copied_bytes(len(whole), MIB)
    log.say("exit code 3")
    assert len(read(logs)) <= 3 * MIB
    log.end()
    log.end()
    log.close()
    assert log.truncated
    assert len(read(logs)) <= 4 * MIB + 200
    head, missing, tail = parts_of_long(logs)
    assert 3 * MIB - 10 <= len(head) <= 3 * MIB
    printed = tail.removesuffix(b"[reactorcide] exit code 3\n")
    assert len(head) + len(tail) == 4 * MIB
    assert whole.startswith(head)
    assert whole.endswith(printed)
    assert len(head) + missing + len(printed) == len(whole)


def test_log_at_the_limit_is_complete(logs: LocalLogStore) -> None:
    log = new_log(logs, max_bytes=4 * MIB)
    whole = b"".join(b"%09d\n" % number for number in range(4 * MIB // 10))
    for start in range(0, len(whole), 100_000):
        log.feed([(1, whole[start : start + 100_000])])
    assert log.copied_bytes == copied_bytes(len(whole), 4 * MIB // 10)
    log.end()
    assert not log.truncated
    assert read(logs) == whole


@pytest.mark.parametrize("ended", [True, False])
def test_a_long_log_can_be_continued(logs: LocalLogStore, ended: bool) -> None:
    whole = b"".join(b"%09d\n" % number for number in range(MIB))
    log = new_log(logs, max_bytes=4 * MIB)
    log.feed([(1, whole[start : start + 100_000]) for start in range(0, len(whole) // 2, 100_000)])
    if ended:
        log.say("exit code 3")
        log.end()
    log.close()
    log = new_log(logs, max_bytes=4 * MIB)
    assert log.truncated == ended
    log.restart(0)
    assert not log.truncated
    log.feed([(1, whole[start : start + 90_000]) for start in range(0, len(whole), 90_000)])
    assert log.copied_bytes == copied_bytes(len(whole), MIB)
    log.end()
    head, missing, tail = parts_of_long(logs)
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head) + missing + len(tail) == len(whole)


def test_buffered_tail_takes_little_memory(logs: LocalLogStore) -> None:
    log = new_log(logs, max_bytes=4 * MIB)
    log.feed([(1, b"x" * 100_000 + b"\n")] * 40)
    for _ in range(100):
        log.feed([(1, b"\n"), (2, b"\n")] * 1000)
    tail = log._tail
    assert tail is not None
    assert len(tail.runs) <= 1 << 15
    log.end()
    assert log.truncated


# --- following -----------------------------------------------------------------------------------


def followed(logs: LocalLogStore, notifier: LocalNotifier, closed: threading.Event) -> Iterator[bytes]:
    for view, start, end in follow_log(logs, notifier, "job", 1, closed.is_set):
        yield b"".join(view.read(start, end))


def test_a_follower_gets_every_byte_once_and_ends_with_the_log(logs: LocalLogStore) -> None:
    notifier = LocalNotifier()
    closed = threading.Event()
    chunks: list[bytes] = []
    caught_up = threading.Event()

    def follow() -> None:
        for chunk in followed(logs, notifier, closed):
            chunks.append(chunk)
            caught_up.set()

    thread = threading.Thread(target=follow)
    thread.start()
    log = LogWriter(logs, notifier, "job", 1)
    for number in range(200):
        log.feed([(1, b"%d\n" % number)])
        if number == 0:
            # The first line arrives while the log is open: that is what following means.
            assert caught_up.wait(30)
    log.close()
    closed.set()
    notifier.announce("job")
    thread.join(30)
    assert b"".join(chunks) == b"".join(b"%d\n" % number for number in range(200))


def test_a_follower_never_reads_what_is_not_in_the_index(logs: LocalLogStore, tmp_path: Path) -> None:
    log = new_log(logs)
    log.feed([(1, b"whole\n")])
    with logs.path(KEY).open("ab") as file:
        file.write(b"written, and may be cut back")
    assert next(followed(logs, LocalNotifier(), threading.Event())) == b"whole\n"
    log.close()


def test_a_follower_ends_when_the_service_stops(logs: LocalLogStore) -> None:
    notifier = LocalNotifier()
    log = LogWriter(logs, notifier, "job", 1)
    log.feed([(1, b"so far\n")])
    chunks: list[bytes] = []
    thread = threading.Thread(target=lambda: chunks.extend(followed(logs, notifier, threading.Event())))
    thread.start()
    notifier.close()
    thread.join(30)
    assert not thread.is_alive()
    assert b"".join(chunks) == b"so far\n"
    log.close()


def test_a_follower_of_a_silent_log_yields_empty_chunks(logs: LocalLogStore) -> None:
    assert next(followed(logs, LocalNotifier(), threading.Event())) == b""


@pytest.mark.parametrize("free", range(3))
def test_a_log_that_cannot_be_opened_leaves_no_descriptor_open(logs: LocalLogStore, free: int) -> None:
    new_log(logs).close()
    before = open_descriptors(os.getpid())
    with pytest.raises(ObjectStoreError, match="Too many open files"), few_descriptors(free):
        new_log(logs)
    assert open_descriptors(os.getpid()) == before
