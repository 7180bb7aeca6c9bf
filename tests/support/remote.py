"""A real ``reactorcide worker`` in a separate process group."""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker

from tests.support.launch import Process, launch
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until

_START_S = 20
_STOP_S = 10


def add_worker(service: Service, name: str, *queues: str) -> tuple[str, str]:
    """Add a worker to a service, as its admin; returns its id and its registration token."""
    body = {"name": name, "queues": list(queues)}
    response = service.admin.request("POST", "workers", json=body)
    assert response.status_code == 201, response.text
    added = response.json()
    return added["worker_id"], added["token"]


class RemoteWorker:
    """A worker with a data directory below ``home``.

    ``start``, then ``stop`` or ``kill``, any number of times over; ``options`` are those of ``worker``.
    """

    def __init__(self, service: Service, home: Path, name: str, *queues: str, **options: object) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.data_dir = home / "data"
        self.log_path = home / "worker.log"
        self.worker_id, self.token = add_worker(service, name, *queues)
        self.environment: dict[str, str] = {}
        self.program: Sequence[str] | None = None
        """The program and its first arguments, if it is not that of this checkout."""
        self.options: dict[str, object] = {
            "server": service.base_url,
            "token": self.token,
            "data_dir": self.data_dir,
            "warm": 0,
            "concurrency": 2,
        } | options
        self._process: Process | None = None

    def start(self) -> "RemoteWorker":
        """Start the worker, and return it when it is connected."""
        before = self.log_text().count("is connected to")
        self.launch()
        process = self._process
        assert process is not None
        wait_until(
            lambda: self.log_text().count("is connected to") > before or process.poll() is not None,
            _START_S,
            "the worker is connected",
        )
        assert process.poll() is None, self.log_text()
        return self

    def launch(self) -> None:
        """Start the worker, and return at once."""
        with self.log_path.open("ab") as log:
            self._process = launch(
                command_line("worker", self.options, self.program),
                clean_environment(self.home, **self.environment),
                self.home,
                output=log.fileno(),
            )

    def signal(self, number: signal.Signals) -> None:
        """Send the worker a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop the worker with SIGTERM; it must end in time and with exit code 0. Safe to repeat."""
        if self._process is not None:
            self.signal(signal.SIGTERM)
            assert self.wait() == 0, self.log_text()

    def wait(self) -> int:
        """Return its exit code when it has ended, which must be in time."""
        assert self._process is not None
        try:
            return self._process.wait(_STOP_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the worker at once. Safe to repeat."""
        process, self._process = self._process, None
        if process is not None:
            # Mostly it has ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def freeze(self) -> None:
        """Stop the process without ending it, as a machine that hangs."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have a frozen process go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def log_text(self) -> str:
        """Return what the worker has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def containers(self, engine: docker.APIClient) -> list[dict[str, Any]]:
        """Return the containers of this worker's jobs, in whatever state."""
        found: list[dict[str, Any]] = engine.containers(all=True, filters={"label": "reactorcide.instance"})
        return [
            item for item in found if item["Labels"]["reactorcide.instance"].endswith(f".{self.worker_id}")
        ]
