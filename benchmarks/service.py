"""A real ``reactorcide serve`` with its own data directory, and a fast client."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

PROGRAM = Path(__file__).parents[1] / "reactorcide.py"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0
_WARM_TIMEOUT_S = 60.0
_IDLE_S = 5.0
"""The client closes an idle connection after this, well before the service does."""


class Client:
    """One persistent connection, for one thread."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._last_used = monotonic()

    def call(self, method: str, path: str, body: object = None, *, expect: int = 200) -> bytes:
        """Return the body of an answer; raises ``RuntimeError`` for an unexpected status."""
        if monotonic() - self._last_used > _IDLE_S:
            self.close()
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, f"/api/v1{path}", data, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        self._last_used = monotonic()
        if response.status != expect:
            raise RuntimeError(f"{method} {path} was answered with {response.status}: {answer[:500]!r}")
        return answer

    def submit(
        self,
        image: str,
        command: str = "true",
        *,
        job_env_vars: Mapping[str, str] | None = None,
        services: Mapping[str, Any] | None = None,
        source_path: str | None = None,
    ) -> str:
        """Submit a job and return its id."""
        definition = {
            "name": "benchmark",
            "source_type": "copy",
            "runner_image": image,
            "job_command": command,
            "job_env_vars": dict(job_env_vars or {}),
            "services": services,
            "source_path": source_path,
        }
        return str(json.loads(self.call("POST", "/jobs", definition, expect=201))["job_id"])

    def wait(self, job_id: str, *, for_status: str = "completed") -> None:
        """Return when the job has that status; raises ``RuntimeError`` when it ends otherwise."""
        while True:
            job: dict[str, Any] = json.loads(self.call("GET", f"/jobs/{job_id}?wait=60"))
            if job["status"] == for_status:
                return
            if job["status"] in ("completed", "failed", "cancelled"):
                raise RuntimeError(f"a benchmark's job {job['status']}: {job['error']}")

    def wait_until_warm(self, count: int) -> None:
        """Return when so many containers wait for jobs."""
        deadline = monotonic() + _WARM_TIMEOUT_S
        while json.loads(self.call("GET", "/workers"))["workers"][0]["warm_containers"] != count:
            if monotonic() > deadline:
                raise RuntimeError(f"no {count} containers wait for jobs")
            sleep(0.05)

    def delete(self, job_id: str) -> None:
        """Delete a job, so that its log does not fill the disk."""
        self.call("DELETE", f"/jobs/{job_id}", expect=204)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._connection.close()


class Service:
    """A running service. ``started_s`` is the time from its exec to its first answer."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", port: int, data_dir: Path, started_s: float
    ) -> None:
        self.process = process
        self.data_dir = data_dir
        self.started_s = started_s
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.token = (data_dir / "admin-token").read_text(encoding="ascii").strip()

    def client(self) -> Client:
        """Return a new client, as the admin."""
        return Client(self.port, self.token)


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Service]:
    """Run a service on a temporary data directory."""
    data_dir = Path(tempfile.mkdtemp(prefix="reactorcide-benchmark-"))
    arguments = [sys.executable, str(PROGRAM), "serve", "--port", "0", "--data-dir", str(data_dir), *options]
    # The caller's variables are for another service.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REACTORCIDE_")}
    log = data_dir / "serve.log"
    try:
        with open(log, "wb") as log_file:
            launched = perf_counter()
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, env=environment
            )
        try:
            port = _port(process, log)
            _await_answer(process, port, log)
            yield Service(process, port, data_dir, perf_counter() - launched)
        finally:
            stop(process)
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the port as soon as the service has printed it."""
    for _ in _polls(process, log):
        match = re.search(rb"listens on http://127\.0\.0\.1:(\d+)", log.read_bytes())
        if match is not None:
            return int(match[1])
    raise AssertionError("_polls ends with an error")


def _await_answer(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    for _ in _polls(process, log):
        client = Client(port)
        with contextlib.suppress(OSError), contextlib.closing(client):
            client.call("GET", "/health")
            return


def _polls(process: "subprocess.Popen[bytes]", log: Path) -> Iterator[None]:
    """Yield every 5 ms; raises ``RuntimeError`` when the process ends, or after 30 s."""
    deadline = monotonic() + _START_TIMEOUT_S
    while process.poll() is None and monotonic() < deadline:
        yield
        sleep(0.005)
    text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"the service did not start:\n{text}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process: with SIGTERM, or if that takes too long at once."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
