"""Running a program of the host with a deadline, so that its whole process group can be killed."""

import os
import re
import resource
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from reactorcide.lib.records import record

_READ_BYTES = 64 * 1024
_POLL_S = 0.1
_REAP_POLL_S = 0.005
_LINE_BYTES = 8 * 1024
MAX_RECORD_BYTES = 8 * 1024
_PROGRESS_EVERY_S = 5.0
# A trailing carriage return may be the first half of a line end, so it waits for the next byte.
_LINE_END = re.compile(rb"\r?\n|\r(?!\Z)")


class Interrupt(Protocol):
    """The signal to an attempt that it must stop (cancel, shutdown)."""

    def calling(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``stop`` once, from any thread, as soon as the attempt must stop; at once if it must already.

        After the context has ended, ``stop`` is not running and is not called. ``stop`` neither blocks nor
        raises.
        """

    def check(self) -> None:
        """Raise ``JobInterrupted`` if the attempt must stop."""


class RecordTooLong(Exception):
    """The program wrote a record of more than ``MAX_RECORD_BYTES``."""


class DeadlinePassed(Exception):
    """The program was still running at its deadline, and was killed."""


@record
class ProcessLimits:
    """The limits of a program, and of each one that it starts; 0 is no limit."""

    memory_bytes: int = 0
    """Address space, including mapped files."""
    file_bytes: int = 0
    """The largest file that it may write."""

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` under these limits.

        A shell sets them before it executes the program: setting them in the forked child is not safe in a
        process with threads, and from outside it is too late. A lower limit of the service itself stays.
        """
        # Without SIGXFSZ a write past the limit fails with a reason.
        limits = ["trap '' XFSZ", "ulimit -c 0"]
        for option, unit, kind, limit in (
            ("-v", 1024, resource.RLIMIT_AS, self.memory_bytes),
            ("-f", 512, resource.RLIMIT_FSIZE, self.file_bytes),
        ):
            hard = resource.getrlimit(kind)[1]
            if limit and (hard == resource.RLIM_INFINITY or limit < hard):
                limits.append(f"ulimit {option} {max(1, limit // unit)}")
        return ["/bin/sh", "-c", " && ".join([*limits, 'exec "$@"']), "sh", *command]


_NO_LIMITS = ProcessLimits()


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Callable[[bytes], None],
    stderr: Callable[[bytes], None],
    interrupt: Interrupt,
    deadline: float,
    records: bool = False,
    limits: ProcessLimits = _NO_LIMITS,
    watch: Callable[[], None] = lambda: None,
) -> int:
    """Run ``command`` to its end and return its exit code (negative: the signal that ended it).

    ``stdout`` and ``stderr`` get each line of output as it arrives, on the calling thread, without its end
    (see ``Lines``); with ``records``, ``stdout`` gets records that end with NUL (see ``Records``). The
    program has its own session and no input; files it creates are readable by everybody (umask 022), whatever
    the service's umask. ``deadline`` is in seconds of ``time.monotonic``. ``watch`` is called several times a
    second while the program runs, and stops it by raising. A program that cannot be started ends with 126 or
    127.

    Raises ``DeadlinePassed``, ``RecordTooLong``, ``JobInterrupted``, the errors of callbacks, and ``OSError``
    when the program cannot be started. Its whole process group is killed before an error is raised.
    """
    interrupt.check()
    process = subprocess.Popen(  # noqa: S603  (the caller's list of arguments; the shell gets them as such)
        limits.wrap(command),
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        umask=0o022,
    )
    group = _Group(process)
    try:
        with interrupt.calling(group.kill):
            _pump(
                process, group, Records(stdout) if records else Lines(stdout), Lines(stderr), deadline, watch
            )
            while (code := group.poll()) is None:
                _check_deadline(deadline)
                watch()
                time.sleep(_REAP_POLL_S)  # both pipes are closed: it is about to exit
    finally:
        group.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    interrupt.check()
    return code


class Lines:
    """Splits a stream of bytes into lines for ``sink``, without trailing white space and empty lines.

    Lines that end in a carriage return are a progress display: at most one in 5 s is passed on. A line
    without an end is cut after 8 KiB, so that memory stays bounded.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._rest = b""
        self._progress_due = time.monotonic() + _PROGRESS_EVERY_S

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        data = self._rest + data
        end = 0
        for match in _LINE_END.finditer(data):
            line, end = data[end : match.start()], match.end()
            if match[0] == b"\r":
                if time.monotonic() < self._progress_due:
                    continue
                self._progress_due = time.monotonic() + _PROGRESS_EVERY_S
            self._emit(line)
        self._rest = data[end:]
        if len(self._rest) > _LINE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pass on the rest, at the end of the stream."""
        self._emit(self._rest)
        self._rest = b""

    def _emit(self, line: bytes) -> None:
        if line := line.rstrip():
            self._sink(line)


class Records:
    """Splits a stream of bytes into records for ``sink``, without the NUL at their end.

    Raises ``RecordTooLong`` for one of more than 8 KiB: if it were cut, its rest would look like a record.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        *records, self._rest = (self._rest + data).split(b"\0")
        for item in records:
            self._pass_on(item)
        if len(self._rest) > MAX_RECORD_BYTES:
            raise RecordTooLong

    def flush(self) -> None:
        """Pass on the rest, at the end of the stream."""
        if self._rest:
            self._pass_on(self._rest)
            self._rest = b""

    def _pass_on(self, record: bytes) -> None:
        if len(record) > MAX_RECORD_BYTES:
            raise RecordTooLong
        self._sink(record)


class _Group:
    """The process group of ``process``, which is its leader.

    The lock makes killing safe: until the leader is reaped, no other process can get its number.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            return self._process.poll()

    def kill(self) -> None:
        with self._lock:
            if self._process.returncode is None:
                # macOS returns EPERM if only a zombie is left of the group.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)


def _pump(
    process: subprocess.Popen[bytes],
    group: _Group,
    stdout: Lines | Records,
    stderr: Lines,
    deadline: float,
    watch: Callable[[], None],
) -> None:
    """Pass the output on until both pipes are closed, or the program has ended and they are empty."""
    with selectors.DefaultSelector() as selector:
        for pipe, cut in ((process.stdout, stdout), (process.stderr, stderr)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, cut)
        while selector.get_map():
            _check_deadline(deadline)
            watch()
            # Before the pipes are read: it may write its last output and end at any moment.
            has_ended = group.poll() is not None
            ready = selector.select(min(_POLL_S, max(0.0, deadline - time.monotonic())))
            if not ready and has_ended:
                # A process that outlives it (a persistent ssh connection) has the pipe open, too.
                break
            for key, _ in ready:
                if data := os.read(key.fd, _READ_BYTES):
                    key.data.feed(data)
                else:
                    selector.unregister(key.fileobj)
                    key.data.flush()
        for key in selector.get_map().values():
            key.data.flush()


def _check_deadline(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise DeadlinePassed
