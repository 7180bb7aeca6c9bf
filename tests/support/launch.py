"""Starts the program in a process of its own, sooner than a new interpreter would.

Commands, services and workers are forks of ``preloaded.py``, unless Python reads one of their variables
before the imports. ``REACTORCIDE_TEST_FRESH=1`` has each be a new interpreter.
"""

import array
import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

CHECKOUT = Path(__file__).resolve().parents[2]
LAUNCHER = (sys.executable, str(CHECKOUT / "reactorcide.py"))
_PRELOADED = Path(__file__).with_name("preloaded.py")
_HARMLESS = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG")
"""Variables that play a part after the imports only, as do those of Reactorcide and of S3."""


class Process(Protocol):
    """What the tests use of a ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


def launch(arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, *, output: int) -> Process:
    """Start a program in a session of its own; all that it prints goes to the file ``output``."""
    with open(os.devnull, "rb") as nothing:
        if is_preloaded(arguments, environment):
            return Forked(arguments[1:], environment, cwd, (nothing.fileno(), output, output))
        return subprocess.Popen(
            arguments,
            env=environment,
            cwd=cwd,
            stdin=nothing,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def is_preloaded(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether a fork does the same as a new interpreter."""
    return (
        "REACTORCIDE_TEST_FRESH" not in os.environ
        and not any(signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGHUP, signal.SIGINT))
        and tuple(arguments[:2]) == LAUNCHER
        and all(name in _HARMLESS or name.startswith(("REACTORCIDE_", "AWS_")) for name in environment)
    )


def run(
    arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, *, input: bytes, timeout_s: float
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end, and return what it has printed; raises ``subprocess.TimeoutExpired``."""
    if not is_preloaded(arguments, environment):
        return subprocess.run(
            arguments, env=environment, cwd=cwd, input=input, capture_output=True, timeout=timeout_s
        )
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(input)
        given.seek(0)
        streams = [file.fileno() for file in (given, output, errors)]
        process = Forked(arguments[1:], environment, cwd, streams)
        try:
            code = process.wait(timeout_s)
        finally:
            process.send_signal(signal.SIGKILL)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


class Forked:
    """A process that ``preloaded.py`` has forked; used as a ``subprocess.Popen`` is."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        streams: Sequence[int],
    ) -> None:
        self._answers, theirs = socket.socketpair()
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "cwd": str(cwd),
        }
        files = array.array("i", [theirs.fileno(), *streams])
        with theirs:
            _requests().sendmsg(
                [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files.tobytes())]
            )
        self._answers_file = self._answers.makefile("rb")
        self.pid = int(self._answers_file.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or ``None`` as long as it runs."""
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended; raises ``subprocess.TimeoutExpired``."""
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _end(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._answers, select.POLLIN)
            if poll.poll(None if timeout_s is None else 1000 * timeout_s):
                self.returncode = int(self._answers_file.readline())
                self._answers_file.close()
                self._answers.close()
        return self.returncode


@cache
def _requests() -> socket.socket:
    """Return where the process takes requests; it starts with the first, and ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Its own session: Ctrl-C is for the tests. Its environment is that of a program which is given none.
    environment = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, str(_PRELOADED)],
        env=environment,
        cwd="/",
        stdin=theirs.fileno(),
        start_new_session=True,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(20)

    atexit.register(end)
    return ours
