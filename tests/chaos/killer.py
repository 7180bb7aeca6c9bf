"""Kills a service at random while clients submit and cancel jobs and runs, then accounts for every one."""

import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

import docker
import requests

from tests.support.client import Client, Job
from tests.support.runs import Run, repository, start, statuses
from tests.support.service import Service
from tests.support.waiting import wait_until

LINES = 60
_CLIENTS = 2
_MAX_OPEN = 40
"""Jobs that wait or run: kills on a busy machine would otherwise leave hours of work behind."""
_SETTLE_S = 1200.0
_NOT_STARTED = "the service was killed before the command had started"

# Long enough to live through a kill and a start. What a command does is what counts, not what the engine says
# of its container: so each calls a server of the test before all else.
CALL = """
gateway=$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')
wget -q -O /dev/null "http://$gateway:$CALLS_PORT/$REACTORCIDE_JOB_ID"
"""
COMMAND = f"""{CALL}
i=0
while [ $i -lt {LINES} ]; do
  echo out $i
  echo err $i >&2
  i=$((i + 1))
  [ $((i % 12)) -ne 0 ] || sleep 0.2
done
echo kept > /job/artifacts/kept
exit """


_GRAPH = {
    "a": ("", 0),
    "b": ("needs: [a], matrix: {n: [1, 2]}", 0),
    "c": ("needs: [a], concurrency: {group: c}", 3),
    "d": ("needs: [b, c], condition: always", 0),
    "e": ("needs: [c]", 0),
}
"""The jobs of a run: their keys and their exit codes."""
_NODES = {
    "a": "completed",
    "b (1)": "completed",
    "b (2)": "completed",
    "c": "failed",
    "d": "completed",
    "e": "skipped",
}
"""How the nodes of a run end."""


@dataclass
class Request:
    """A job or a run that a client asked for, with as much of its fate as the client learned."""

    name: str
    exit_code: int
    accepted: bool = False
    """``False`` where there was no answer: then there may be a job or not."""
    cancelled: bool | None = False
    """Whether a cancel was in time; ``None`` where no answer to it was ever received."""


@dataclass
class Tally:
    """Counts of the actions, for the report."""

    kills: int = 0
    jobs: list[Request] = field(default_factory=list)
    """Jobs."""
    runs: list[Request] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """How many jobs were answered with a 201."""
        return sum(one.accepted for one in self.jobs)

    @property
    def cancels(self) -> int:
        """How many cancels were answered with a 200."""
        return sum(one.cancelled is True for one in self.jobs)

    def __str__(self) -> str:
        unanswered = len(self.jobs) - self.accepted
        jobs = f"{self.accepted} jobs accepted, {unanswered} unanswered, {self.cancels} cancelled"
        runs = f"{sum(one.accepted for one in self.runs)} runs accepted"
        cancelled = sum(one.cancelled is True for one in self.runs)
        return f"{jobs}; {runs}, {cancelled} cancelled; {self.kills} kills"


def survive(
    service: Service, engine: docker.APIClient, duration_s: float, seed: int, *, burners: int = 0
) -> Tally:
    """Submit, cancel and kill for a while; then see that nothing is lost, doubled or still there.

    Meanwhile so many processes of the test burn the processor.
    """
    with calls() as (called, port), _burning(burners):
        tally = _rampage(service, duration_s, seed, {"CALLS_PORT": str(port)})
        print(tally)  # the figures
        _account_for(service, engine, tally, called)
    return tally


@contextmanager
def calls() -> Iterator[tuple[Counter[str], int]]:
    """Count how often each job's command has started, by its own call; yields the counts and the port."""
    counted: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            counted[self.path.removeprefix("/")] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    # Containers come from the bridge's network, so not on loopback alone.
    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104  # as said
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield counted, server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _burning(processes: int) -> Iterator[None]:
    """Keep the processor busy meanwhile."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _rampage(service: Service, duration_s: float, seed: int, variables: dict[str, str]) -> Tally:
    """Submit, cancel and kill for a while; returns with the service up."""
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    tally, over = Tally(), threading.Event()
    source = repository(service.source_root / "workflow", {"workflows/ci.yaml": _workflow(variables)})

    def run_and_cancel(client: Client, chance: random.Random, name: str) -> None:
        one = Request(name, 1)
        tally.runs.append(one)
        try:
            run = start(client, source, event={"name": "push", "actor": name})
        except requests.RequestException:
            return
        one.accepted = True
        if chance.random() < 0.3:
            while not over.wait(chance.uniform(0.0, 2.0)):
                one.cancelled = _cancel(client, f"runs/{run['run_id']}")
                if one.cancelled is not None:
                    break

    def submit_and_cancel(number: int) -> None:
        chance = random.Random(seed + number)  # noqa: S311
        client = service.client(service.admin.token or "")
        while not over.wait(chance.uniform(0.0, 0.8)):
            try:
                if open_jobs(client) >= _MAX_OPEN:
                    continue
            except requests.RequestException:
                continue
            # One at least, however slow the machine is.
            if (number == 1 and not tally.runs) or chance.random() < 0.15:
                run_and_cancel(client, chance, f"{number}-{len(tally.runs)}")
                continue
            one = Request(f"{number}-{len(tally.jobs)}", chance.choice((0, 0, 3)))
            tally.jobs.append(one)
            try:
                job = client.submit(f"{COMMAND}{one.exit_code}", name=one.name, job_env_vars=variables)
            except requests.RequestException:
                continue
            one.accepted = True
            if chance.random() < 0.4:
                while not over.wait(chance.uniform(0.0, 1.0)):
                    one.cancelled = _cancel(client, f"jobs/{job['job_id']}")
                    if one.cancelled is not None:
                        break

    with ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [pool.submit(submit_and_cancel, number) for number in range(1, _CLIENTS + 1)]
        ends_at = monotonic() + duration_s
        try:
            while monotonic() < ends_at:
                # The interval is the randomness of it, and waits for nothing. Short ones hit the taking over.
                over.wait(chance.uniform(0.0, chance.choice((0.5, 3.0, 3.0))))
                service.kill()
                tally.kills += 1
                service.start()
        finally:
            over.set()
    for client in clients:
        client.result()
    return tally


def open_jobs(client: Client) -> int:
    """Return how many jobs are not over."""
    statuses = ("submitted", "submit_failed", "queued", "running")
    response = client.request("GET", "jobs", params=[("limit", 1), *(("status", one) for one in statuses)])
    response.raise_for_status()
    total: int = response.json()["total"]
    return total


def _workflow(variables: dict[str, str]) -> str:
    """Return a workflow each of whose jobs calls and prints as a job that is submitted alone."""
    jobs = {
        name: f"{{{keys}, command: {json.dumps(f'{COMMAND}{exit_code}')}}}".replace("{, ", "{")
        for name, (keys, exit_code) in _GRAPH.items()
    }
    lines = "\n".join(f"  {name}: {job}" for name, job in jobs.items())
    return f"name: CI\non: push\nenvironment: {json.dumps(variables)}\njobs:\n{lines}\n"


def _cancel(client: Client, path: str) -> bool | None:
    """Cancel a job or a run; tells whether it was in time, ``None`` where there was no answer."""
    try:
        response = client.request("POST", f"{path}/cancel")
    except requests.RequestException:
        return None
    assert response.status_code in (200, 409), response.text
    return response.status_code == 200


def _account_for(service: Service, engine: docker.APIClient, tally: Tally, called: Counter[str]) -> None:
    """Wait until all is over, and compare it with the requests."""
    wait_until(
        lambda: all(
            item["completed_at"] is not None
            for kind in ("jobs", "runs")
            for item in every(service.admin, kind)
        ),
        _SETTLE_S,
        "every job and every run is over",
    )
    wait_until(lambda: not service.containers(engine), 30, "the containers are gone")
    runs = every(service.admin, "runs")
    in_runs = [job for job in every(service.admin, "jobs") if job["run_id"] is not None]
    _account_for_runs(service, tally, runs, in_runs, called)
    jobs = [job for job in every(service.admin, "jobs") if job["run_id"] is None]
    jobs_by_name = {job["name"]: job for job in jobs}
    assert len(jobs_by_name) == len(jobs), "one request made two of them"
    requested = {one.name: one for one in tally.jobs}
    assert {one.name for one in tally.jobs if one.accepted} <= set(jobs_by_name) <= set(requested)
    for job in jobs:
        has_run = _check_attempts(service, job, called)
        _check_end(job, requested[job["name"]], has_run=has_run)
        _check_log(service, job)
    wait_until(lambda: _queue_is_empty(service), 30, "every task is closed")


def _account_for_runs(
    service: Service, tally: Tally, runs: list[Run], jobs: list[Job], called: Counter[str]
) -> None:
    """See that each run is there once, has ended, and that every node had one job or none."""
    runs_by_actor = {run["event"]["actor"]: run for run in runs}
    assert len(runs_by_actor) == len(runs), "one request made two of them"
    requested = {one.name: one for one in tally.runs}
    assert {one.name for one in tally.runs if one.accepted} <= set(runs_by_actor) <= set(requested)
    for job in jobs:
        has_run = _check_attempts(service, job, called)
        if job["status"] != "cancelled":
            exit_code = _GRAPH[job["node"].partition(" ")[0]][1]
            _check_end(job, Request(job["name"], exit_code), has_run=has_run)
        _check_log(service, job)
    by_run = Counter((job["run_id"], job["node"]) for job in jobs)
    assert max(by_run.values(), default=1) == 1
    lost = {job["run_id"] for job in jobs if job["error"] == _NOT_STARTED}
    for actor, run in runs_by_actor.items():
        one = requested[actor]
        nodes = statuses(service.admin.get(f"runs/{run['run_id']}"))
        assert {node for run_id, node in by_run if run_id == run["run_id"]} <= set(nodes)
        if run["status"] == "cancelled":
            assert one.cancelled is not False, run
            assert set(nodes.values()) <= {"cancelled", *_NODES.values()}
        else:
            assert one.cancelled is not True, run
            assert run["status"] == "failed"
            assert nodes == _NODES or run["run_id"] in lost, run


def _check_end(job: Job, one: Request, *, has_run: bool) -> None:
    if job["status"] == "cancelled":
        assert one.cancelled is not False, job
    elif not has_run:
        # Killed each time that it was prepared.
        assert (job["status"], job["attempt"], job["error"]) == ("failed", 21, _NOT_STARTED), job
    else:
        assert one.cancelled is not True, job
        end = ("failed", 3, "exit code 3") if one.exit_code else ("completed", 0, None)
        assert (job["status"], job["exit_code"], job["error"]) == end, job


def _check_attempts(service: Service, job: Job, called: Counter[str]) -> bool:
    """A command without retries runs once, or not at all if it was cancelled; tells whether it has run."""
    attempts = service.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"]
    started = sum(item["started_at"] is not None for item in attempts)
    assert all(item["completed_at"] is not None for item in attempts), attempts
    assert called[job["job_id"]] <= 1, attempts
    assert started <= 1, attempts
    if job["status"] != "cancelled":
        assert called[job["job_id"]] == started, attempts
        assert service.admin.artifact_paths(job) == ["kept"] * started
    return started == 1


def _check_log(service: Service, job: Job) -> None:
    lines = service.admin.log(job).decode().splitlines()
    for stream in ("out", "err"):
        own_lines = [line for line in lines if line.startswith(stream)]
        assert own_lines == [f"{stream} {number}" for number in range(len(own_lines))], job
        assert len(own_lines) == LINES or job["status"] == "cancelled" or job["error"] == _NOT_STARTED, job


def _queue_is_empty(service: Service) -> bool:
    # The task of a submitter that died is closed when the next job of its queue is claimed.
    service.admin.run("true")
    database = f"file:{service.data_dir / 'corndogs.db'}?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as connection:
        return not connection.execute("SELECT uuid FROM task").fetchall()


def every(client: Client, kind: str) -> list[Job]:
    """Return all jobs, or all runs."""
    items: list[Job] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(kind, limit=100, **cursor)
        items += page[kind]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}
