"""Deliveries of a forge: accepted, processed, and listed."""

import contextlib
import hashlib
import hmac
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from time import monotonic, perf_counter, sleep
from typing import Any

from benchmarks.figures import Figure, alone, seconds
from benchmarks.runs import project
from benchmarks.service import Client, Service, serving
from reactorcide.domain.deliveries import Delivery
from reactorcide.domain.projects import Project, Visibility
from reactorcide.lib.ids import new_id
from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.vault import Vault

_PER_SECOND = 50
_BODY_BYTES = 10_000
"""About what a push of one commit has."""
_PAGE = 51


def acceptance(*, quick: bool) -> Figure:
    """Return the 99th percentile of the time to the 202 of deliveries at 50 a second."""
    with (
        project("  a: {command: 'true'}\n") as path,
        _of_forge(path, concurrency=0) as (_, hook),
    ):
        sha = _head(path)
        times_s: list[float] = []
        threads: list[threading.Thread] = []
        started = monotonic()
        for number in range(50 if quick else 500):
            # Deleted branches: the time to work on a delivery is another figure.
            payload = {"ref": "refs/heads/x", "before": sha, "after": "0" * 40, "number": number}

            def send(payload: dict[str, Any] = payload) -> None:
                times_s.append(seconds(lambda: hook.deliver(payload)))

            threads.append(threading.Thread(target=send))
            sleep(max(0.0, started + number / _PER_SECOND - monotonic()))
            threads[-1].start()
        for thread in threads:
            thread.join()
    p99_ms = quantiles(times_s, n=100)[-1] * 1000
    name = f"delivery to 202, the 99th percentile at {_PER_SECOND} a second"
    return Figure(name, p99_ms, None, "ms", p99_ms, "ms", 50, False, len(times_s))


def to_claim(image: str, *, quick: bool) -> Figure:
    """Return the time from a push's delivery to the claim of the first job of its run."""
    job = f'  a: {{image: "{image}", command: "true", checkout: false}}\n'
    times_ms: list[float] = []
    with project(job) as path, _of_forge(path, concurrency=1) as (service, hook):
        client = service.client()
        sha = _head(path)
        for _ in range(3 if quick else 21):
            began = perf_counter()
            hook.deliver({"ref": "refs/heads/main", "before": sha, "after": sha})
            while not (run := _claimed(client, len(times_ms) + 1)):
                sleep(0.002)
            times_ms.append((perf_counter() - began) * 1000)
            while json.loads(client.call("GET", f"/runs/{run}?wait=60"))["status"] == "running":
                pass
    return alone("push's delivery to the claim of the first job", times_ms, unit="ms", mark=500)


def lists(*, quick: bool) -> Figure:
    """Return the time of a page and the total of 10,000 deliveries."""
    count = 1_000 if quick else 10_000
    with tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-") as directory:
        database = Database(Path(directory, "reactorcide.db"))
        database.migrate()
        store = Store(database, Vault.beside(database.path))
        store.instance.id(new_id())
        store.instance.open_vault()
        about = Project(
            project_id=new_id(),
            name="acme/site",
            git_url="https://git.example/acme/site.git",
            visibility=Visibility.PRIVATE,
            created_at_ms=0,
            updated_at_ms=0,
        )
        store.projects.add(about, about.git_url, "u")
        with store.transaction() as tx:
            for number in range(count):
                tx.deliveries.add(_delivery(about.project_id, number))
        page = partial(store.deliveries.page, about.project_id, status=None, limit=_PAGE, after=None)
        times_ms = [seconds(page) * 1000 for _ in range(11 if quick else 51)]
        database.close()
    return alone(f"a page of {count:,} deliveries", times_ms, unit="ms", mark=10)


def _delivery(project_id: str, number: int) -> Delivery:
    return Delivery(
        delivery_id=new_id(),
        project_id=project_id,
        forge_delivery_id=str(number),
        event="push",
        headers={"content-type": "application/json", "x-github-event": "push", "user-agent": "x" * 100},
        size_bytes=_BODY_BYTES,
        created_at_ms=number,
    )


class _Hook:
    """The webhook of a project."""

    def __init__(self, port: int, project_id: str, secret: str) -> None:
        self._port = port
        self._path = f"/api/v1/hooks/{project_id}"
        self._secret = secret.encode()

    def deliver(self, payload: dict[str, Any]) -> None:
        """Deliver a push, on a connection of its own."""
        body = json.dumps(payload | {"padding": "x" * _BODY_BYTES}).encode()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": new_id(),
            "X-Hub-Signature-256": f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}",
        }
        with contextlib.closing(HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            if answer.status != 202:
                raise RuntimeError(f"a delivery was answered with {answer.status}: {answer.read(500)!r}")


@contextlib.contextmanager
def _of_forge(path: Path, *, concurrency: int) -> Iterator[tuple[Service, _Hook]]:
    """Yield a service with a project of a repository, and its webhook."""
    with serving("--concurrency", str(concurrency), "--source-root", str(path)) as service:
        body = {"name": "acme/site", "git_url": f"file://{path}", "forge": "github"}
        created = json.loads(service.client().call("POST", "/projects", body, expect=201))
        yield service, _Hook(service.port, created["project_id"], created["webhook_secret"])


def _head(path: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=path, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _claimed(client: Client, count: int) -> str | None:
    """Return the newest run once the job of the run with that number has been claimed."""
    jobs = json.loads(client.call("GET", "/jobs?limit=1"))
    if jobs["total"] < count or jobs["jobs"][0]["status"] in ("submitted", "queued"):
        return None
    return str(jobs["jobs"][0]["run_id"])
