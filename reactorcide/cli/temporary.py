"""A temporary service with temporary data, for commands that do not use the user's service."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import reactorcide
from reactorcide.cli.client import Client
from reactorcide.cli.session import ServiceError
from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.jobs import ACTIVE
from reactorcide.settings import Settings

PACKAGE_PARENT = Path(reactorcide.__file__).parents[1]

_LISTENS = re.compile(r"^Reactorcide listens on (http://\S+)$", re.MULTILINE)
_START_S = 30.0
_STOP_S = 15.0
_LOOK_EVERY_S = 0.02
_LOG_LINES = 20
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServiceFailed(ReactorcideError):
    """The temporary service did not start or stop as it should."""


class TemporaryService:
    """A real ``reactorcide serve`` in a separate process, with all its data below ``home``."""

    def __init__(self, home: Path, image: str, source_root: Path | None = None) -> None:
        self._settings = Settings(data_dir=home / "data")
        self._log_path = home / "service.log"
        self._log_path.touch()
        self._image = image
        self._source_root = source_root
        self.url = ""
        """Its URL, once it runs."""

    def client(self) -> Client:
        """Return another client of the running service."""
        token = self._settings.admin_token_path.read_text("ascii").strip()
        # Over its socket: a token from a file is never sent to a port.
        return Client(self._settings.data_dir, token, "the token is the one that the service created")

    @contextmanager
    def running(self) -> Iterator[Client]:
        """Start the service, yield a client of it, and stop it; raises ``ServiceFailed`` if a step fails.

        If the body raises, the jobs are cancelled and their containers removed before the service stops.
        """
        process = self._start()
        guard = None
        try:
            guard = _Guard(lambda: self._clean_up(process))
            self.url = self._wait_until_it_listens(process)
            with self.client() as client:
                self._wait_until_jobs_can_run(client)
                try:
                    yield client
                except BaseException:
                    _leave_no_container(client)
                    raise
            process.send_signal(signal.SIGTERM)
            exit_code = _wait(process)
            if exit_code != 0:
                raise ServiceFailed(
                    f"the service should have stopped with exit code 0, but it was {exit_code}"
                )
        finally:
            if process.poll() is None:
                process.terminate()
                _wait(process)
            if guard is not None:
                guard.end()

    def log_tail(self) -> str:
        """Return the last lines that the service has logged."""
        with self._log_path.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, _LOG_LINES))

    def _clean_up(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the service and remove its data after this program was killed."""
        with suppress(ReactorcideError, OSError), self.client() as client:
            _leave_no_container(client)
        deadline = time.monotonic() + _STOP_S
        # It is not a child of the process that calls this.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                os.kill(process.pid, 0)
                time.sleep(_LOOK_EVERY_S)
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self._log_path.parent, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        # The caller's variables are for another service.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("REACTORCIDE_")
        }
        # Works from a checkout, too, where nothing is installed.
        search = [os.fspath(PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, search))
        options = {
            "--port": "0",
            "--data-dir": os.fspath(self._settings.data_dir),
            "--default-image": self._image,
            # Children in the same group would end with the service.
            "--max-cache-bytes": "0",
            "--warm": "0",
        }
        if self._source_root is not None:
            options["--source-root"] = os.fspath(self._source_root)
        arguments = ["--run-local", *(part for option in options.items() for part in option)]
        with self._log_path.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # this very program
                [sys.executable, "-m", "reactorcide", "serve", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for this program, which cleans up before it stops the service.
                start_new_session=True,
            )

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            match = _LISTENS.search(self._log_path.read_text("utf-8", errors="replace"))
            if match is not None:
                return match[1]
            if process.poll() is not None:
                raise ServiceFailed(f"the service did not start, its exit code is {process.returncode}")
            time.sleep(_LOOK_EVERY_S)
        raise ServiceFailed(f"the service did not listen within {_START_S:.0f} s")

    def _wait_until_jobs_can_run(self, client: Client) -> None:
        """Raise ``ServiceFailed`` for what jobs would wait for: nobody would mend it."""
        deadline = time.monotonic() + _START_S
        while True:
            answer = client.readiness()
            # What has no age has not been checked yet.
            found = {
                part: text
                for part, text in answer["checks"].items()
                if answer["ages_s"][part] is not None or time.monotonic() > deadline
            }
            for part, text in found.items():
                if text != "ok":
                    if part == "object_store":
                        text += ", or set TMPDIR to a directory on a larger disk"
                    raise ServiceFailed(f"no job can run: {text}")
            if len(found) == len(answer["checks"]):
                return
            time.sleep(_LOOK_EVERY_S)


class _Guard:
    """A process that cleans up if this one is killed, by SIGKILL or for lack of memory.

    It waits for the end of a pipe that only this process holds.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        reading, self._writing = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(reading)
            return
        try:
            os.setsid()
            for number in _END_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            os.close(self._writing)
            # A reader of this program's output must not wait for the other process.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(nowhere, standard)
            if os.read(reading, 1) == b"":
                clean_up()
        finally:
            os._exit(0)

    def end(self) -> None:
        """Tell the process that nothing is left to clean up."""
        os.write(self._writing, b".")
        os.close(self._writing)
        os.waitpid(self._pid, 0)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code; a process that takes too long to stop is killed with its children."""
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _leave_no_container(client: Client) -> None:
    """Cancel all jobs and wait until their containers are removed: stopping a service leaves them running."""
    deadline = time.monotonic() + _STOP_S
    with suppress(ServiceError):
        active = {"status": [status.value for status in ACTIVE]}
        for job in client.jobs(active)["jobs"]:
            client.cancel(job["job_id"])
        while time.monotonic() < deadline and any(worker["running_jobs"] for worker in client.workers()):
            time.sleep(_LOOK_EVERY_S)


def clean_up_on_signals() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP raise an exception, so that the commands that call this clean up.

    Only the first signal does: another one would interrupt the clean-up, and leave containers running.
    Signals that were ignored at the start, as by ``nohup``, stay ignored.
    """
    for number in _END_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    for end_signal in _END_SIGNALS:
        signal.signal(end_signal, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
