"""Programs under a deadline: their output, and their end in time."""

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reactorcide.domain.errors import JobInterrupted
from reactorcide.sources.process import DeadlinePassed, Lines, Records, RecordTooLong, run
from tests.support.waiting import wait_until

from .support import Attempt, running


def shell(
    script: str,
    *,
    attempt: Attempt | None = None,
    timeout_s: float = 60,
    stdout: Callable[[bytes], None] = lambda line: None,
    stderr: Callable[[bytes], None] = lambda line: None,
    records: bool = False,
) -> int:
    return run(
        ["/bin/sh", "-c", script],
        cwd=Path("/"),
        env={"PATH": os.environ["PATH"]},
        stdout=stdout,
        stderr=stderr,
        interrupt=attempt or Attempt(),
        deadline=time.monotonic() + timeout_s,
        records=records,
    )


def test_output_just_before_the_exit_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program writes and ends between the look into its pipes and the question whether it has ended."""

    goes_on = tmp_path / "goes-on"

    class Late(selectors.DefaultSelector):
        is_first = True

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if not self.is_first:
                return super().select(timeout)
            self.is_first = False
            goes_on.touch()
            # Returns once the program has ended, without reaping it.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            return []

    monkeypatch.setattr(selectors, "DefaultSelector", Late)
    lines: list[bytes] = []
    assert shell(f"while [ ! -e {goes_on} ]; do sleep 0.01; done; echo last words", stdout=lines.append) == 0
    assert lines == [b"last words"]


@pytest.fixture
def mark() -> Iterator[str]:
    """A number of seconds that no other process sleeps for; whoever still does at the end is killed."""
    seconds = f"4713.{time.monotonic_ns()}"
    yield seconds
    for pid in running(f"sleep\0{seconds}"):
        os.kill(pid, signal.SIGKILL)


def test_output_exit_code_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "yes")
    out: list[bytes] = []
    err: list[bytes] = []
    script = 'echo "a $LEAKED"; printf b; echo c >&2; read x || echo none; umask; pwd; exit 7'
    assert shell(script, stdout=out.append, stderr=err.append) == 7
    assert out == [b"a", b"bnone", b"0022", b"/"]
    assert err == [b"c"]
    assert shell("kill -9 $$") == -9


def test_records_end_with_nul() -> None:
    out: list[bytes] = []
    err: list[bytes] = []
    script = r"printf 'a\nb \000\000c\r'; echo d >&2; printf 'e\000f'"
    assert shell(script, stdout=out.append, stderr=err.append, records=True) == 0
    assert (out, err) == ([b"a\nb ", b"", b"c\re", b"f"], [b"d"])


@pytest.mark.parametrize("end", [b"", b"\0"])
@pytest.mark.parametrize("piece_bytes", [1000, 64 << 10])
def test_record_is_never_split(end: bytes, piece_bytes: int) -> None:
    records: list[bytes] = []
    cut = Records(records.append)
    output = b"first\0" + b"x" * 8192 + b"\0" + b"y" * 8193 + end

    def feed() -> None:
        for at in range(0, len(output), piece_bytes):
            cut.feed(output[at : at + piece_bytes])
        cut.flush()

    with pytest.raises(RecordTooLong):
        feed()
    assert records == [b"first", b"x" * 8192]


def test_lines_are_cut_and_progress_is_thinned() -> None:
    lines: list[bytes] = []
    cut = Lines(lines.append)
    for percent in range(10_000):
        cut.feed(b"Receiving: %d\r" % percent)
    cut.feed(b"Receiving: done  \r")
    cut.feed(b"\nab")
    cut.feed(b"c\n\n")
    cut.feed(b"x" * 20_000 + b"\nrest")
    cut.flush()
    assert lines == [b"Receiving: done", b"abc", b"x" * 20_000, b"rest"]
    del lines[:]
    for _ in range(1000):
        cut.feed(b"y" * 1000)
    assert max(map(len, lines)) < 10_000
    assert sum(map(len, lines)) > 980_000


def test_progress_is_shown_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines: list[bytes] = []
    cut = Lines(lines.append)
    for second in range(21):
        now = float(second)
        cut.feed(b"%d\r" % second)
    assert lines == [b"4", b"9", b"14", b"19"]  # each is known to be whole when the next one comes


def test_an_interrupt_kills_the_whole_group(mark: str) -> None:
    attempt = Attempt()

    def stop() -> None:
        wait_until(lambda: len(running(f"sleep\0{mark}")) == 2, 20, "both run")
        attempt.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(JobInterrupted):
        shell(f"sleep {mark} & sleep {mark}; true", attempt=attempt)
    stopper.join()
    wait_until(lambda: not running(f"sleep\0{mark}"), 20, "all have ended")


def test_stopping_attempt_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt()
    attempt.stop()
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("started"))
    with pytest.raises(JobInterrupted):
        shell("true", attempt=attempt)


@pytest.mark.parametrize("closed", ["", "exec >&- 2>&-;"])
def test_a_deadline_kills_the_whole_group(closed: str, mark: str) -> None:
    with pytest.raises(DeadlinePassed):
        shell(f"{closed} sleep {mark} & sleep {mark}; true", timeout_s=0.3)
    wait_until(lambda: not running(f"sleep\0{mark}"), 20, "all have ended")


def test_deadline_applies_while_output_arrives() -> None:
    with pytest.raises(DeadlinePassed):
        shell("yes", timeout_s=0.3)


def test_an_error_in_a_callback_kills_the_whole_group(mark: str) -> None:
    def fail(line: bytes) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="hello"):
        shell(f"echo hello; sleep {mark} & sleep {mark}; true", stdout=fail)
    wait_until(lambda: not running(f"sleep\0{mark}"), 20, "all have ended")


def test_surviving_child_is_not_waited_for(mark: str) -> None:
    out: list[bytes] = []
    assert shell(f"setsid sleep {mark} & printf last", stdout=out.append, timeout_s=30) == 0
    assert out == [b"last"]


def test_no_descriptor_stays_open(mark: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        shell("echo x")
        with pytest.raises(DeadlinePassed):
            shell(f"sleep {mark}", timeout_s=0.01)
    assert len(os.listdir("/proc/self/fd")) == before
