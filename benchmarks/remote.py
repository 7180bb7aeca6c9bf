"""Workers on other machines, which here are on loopback, against the service's own worker."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

from benchmarks.figures import Figure, alone, interleaved, ratio, seconds
from benchmarks.service import PROGRAM, Client, Service, serving, stop

_LINE_BYTES = 100
_CONNECT_TIMEOUT_S = 30.0
_IDLE_WORKERS = 1000
_HOLD_S = 50


def one_job(image: str, *, quick: bool) -> Figure:
    """Compare a job of ``true``, from its submission until a client has its result, on both workers."""
    with _both("--warm", "0") as (there, here):
        ours, own = interleaved(
            5 if quick else 40,
            lambda: 1000 * seconds(lambda: there.wait(there.submit(image))),
            lambda: 1000 * seconds(lambda: here.wait(here.submit(image))),
        )
    return ratio("one job, remote worker / the service's own", ours, own, unit="ms", mark=1.10)


def log_throughput(image: str, *, quick: bool) -> Figure:
    """Compare the bytes per second of a job's log on both workers."""
    size_bytes = 20_000_000 if quick else 150_000_000
    command = f"yes {'x' * (_LINE_BYTES - 1)} | head -c {size_bytes}"

    def megabytes_a_second(client: Client) -> float:
        job_id = client.submit(image, command)
        took_s = seconds(lambda: client.wait(job_id))
        stored_bytes = len(client.call("GET", f"/jobs/{job_id}/logs"))
        if stored_bytes != size_bytes:
            raise RuntimeError(f"{size_bytes} bytes were printed, and {stored_bytes} are in the log")
        client.delete(job_id)
        return size_bytes / took_s / 1e6

    with _both("--warm", "0") as (there, here):
        ours, own = interleaved(
            1 if quick else 5, lambda: megabytes_a_second(there), lambda: megabytes_a_second(here)
        )
    name = f"log of {size_bytes // 1_000_000} MB, remote worker / the service's own"
    return ratio(name, ours, own, unit="MB/s", mark=0.9, at_least=True)


def idle_workers(*, quick: bool) -> Figure:
    """Return the processor time of a service with many idle workers, which are simulated."""
    count, settle_s, measured_s = (100, 2, 5) if quick else (_IDLE_WORKERS, 10, 100)
    with serving("--concurrency", "0") as service, contextlib.ExitStack() as stack:
        client = service.client()
        workers: list[_Idle] = []
        for number in range(count):
            workers.append(_Idle(service, client, number))
            stack.callback(workers[-1].close)
            workers[-1].ask()
            # The service closes connections on which nobody has called for a while.
            _answer_all(workers, rest_s=0.0)
        pids = _processes(service)
        begin = monotonic()
        while monotonic() < begin + settle_s:
            _answer_all(workers)
        before, began = _cpu_s(pids), monotonic()
        while monotonic() < began + measured_s:
            _answer_all(workers)
        used = 100 * (_cpu_s(pids) - before) / (monotonic() - began)
    return alone(f"{count} idle workers, of one core", [used], unit="%", mark=10 * count / _IDLE_WORKERS)


@contextlib.contextmanager
def _both(*options: str) -> Iterator[tuple[Client, Client]]:
    """Run a service with a remote worker, and one with its own; yield a client of each."""
    with (
        serving("--concurrency", "0") as hub,
        serving("--concurrency", "1", *options) as own,
        _working(hub, "--concurrency", "1", *options),
    ):
        yield hub.client(), own.client()


@contextlib.contextmanager
def _working(service: Service, *options: str) -> Iterator[None]:
    added = json.loads(service.client().call("POST", "/workers", {"name": "bench"}, expect=201))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REACTORCIDE_")}
    with tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-") as directory:
        log = Path(directory, "log")
        arguments = ["--server", service.url, "--token", added["token"], "--data-dir", f"{directory}/data"]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), "worker", *arguments, *options],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
            )
        try:
            deadline = monotonic() + _CONNECT_TIMEOUT_S
            while b"is connected to" not in log.read_bytes():
                if process.poll() is not None or monotonic() > deadline:
                    raise RuntimeError(f"the worker did not connect: {log.read_text()[-2000:]}")
                sleep(0.01)
            yield
        finally:
            stop(process)


class _Idle:
    """A simulated worker, which holds one call after the other."""

    def __init__(self, service: Service, client: Client, number: int) -> None:
        added = json.loads(client.call("POST", "/workers", {"name": f"idle-{number}"}, expect=201))
        secret, self._session_id = uuid.uuid4().hex, str(uuid.uuid4())
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        self._headers = {"Content-Type": "application/json"}
        self._call("register", {"token": added["token"], "secret": secret})
        self._headers["Authorization"] = f"Bearer {secret}"
        session = {"session_id": self._session_id, "host": "idle", "version": "0", "protocol": 1}
        self._call("sessions", session | {"concurrency": 1, "queues": [], "lost_after": 300})
        self.until = 0.0

    def ask(self) -> None:
        """Send the next call."""
        body = json.dumps({"free": 1, "held": [], "wait": _HOLD_S})
        path = f"/api/v1/worker/sessions/{self._session_id}/next"
        self._connection.request("POST", path, body, self._headers)
        self.until = monotonic() + _HOLD_S

    def answer(self) -> None:
        """Read the answer."""
        self._connection.getresponse().read()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, path: str, body: object) -> None:
        self._connection.request("POST", f"/api/v1/worker/{path}", json.dumps(body), self._headers)
        response = self._connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{path} was answered with {response.status}: {response.read()!r}")
        response.read()


def _answer_all(workers: list[_Idle], rest_s: float = 0.05) -> None:
    """Have those call again whose call is answered about now; the oldest is the first to be."""
    now = monotonic()
    for worker in workers:
        if worker.until <= now:
            worker.answer()
            worker.ask()
    sleep(rest_s)


def _processes(service: Service) -> list[int]:
    master = service.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def _cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
