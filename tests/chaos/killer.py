"""Kills a service at random while clients submit and cancel jobs, then accounts for every one of them."""

import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import monotonic

import docker
import requests

from tests.support.client import FINAL, Client, Job
from tests.support.service import Service
from tests.support.waiting import wait_until

LINES = 60
_CLIENTS = 2
_SETTLE_S = 120.0

# Long enough to live through a kill and a start.
_COMMAND = f"""
i=0
while [ $i -lt {LINES} ]; do
  echo out $i
  echo err $i >&2
  i=$((i + 1))
  [ $((i % 12)) -ne 0 ] || sleep 0.2
done
echo kept > /job/artifacts/kept
exit """


@dataclass
class Asked:
    """A job that a client asked for, as far as it learned what became of it."""

    name: str
    exit_code: int
    accepted: bool = False
    """``False`` where there was no answer: then there may be a job or not."""
    cancelled: bool | None = False
    """Whether a cancel was in time; ``None`` where no answer to it was ever received."""


@dataclass
class Tally:
    """What was done, for the figures."""

    kills: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """How many jobs were answered with a 201."""
        return sum(one.accepted for one in self.asked)

    @property
    def cancels(self) -> int:
        """How many cancels were answered with a 200."""
        return sum(one.cancelled is True for one in self.asked)

    def __str__(self) -> str:
        unanswered = len(self.asked) - self.accepted
        jobs = f"{self.accepted} jobs accepted, {unanswered} unanswered"
        return f"{jobs}, {self.cancels} cancels, {self.kills} kills"


def survive(service: Service, engine: docker.APIClient, duration_s: float, seed: int) -> Tally:
    """Submit, cancel and kill for a while; then see that nothing was lost, doubled or left."""
    with _starts(engine) as starts:
        tally = _rampage(service, duration_s, seed)
        print(tally)  # the figures
        _account_for(service, engine, tally, starts)
    return tally


@contextmanager
def _starts(engine: docker.APIClient) -> Iterator[Counter[str]]:
    """Count how often each job's command is started, by what the engine says and not the service."""
    counted: Counter[str] = Counter()
    events = engine.events(decode=True, filters={"event": "start", "label": "reactorcide.job"})

    def count() -> None:
        for event in events:
            counted[event["Actor"]["Attributes"]["reactorcide.job"]] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counted
    finally:
        events.close()
        thread.join()


def _rampage(service: Service, duration_s: float, seed: int) -> Tally:
    """Submit, cancel and kill for a while; returns with the service up."""
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    tally, over = Tally(), threading.Event()

    def submit_and_cancel(number: int) -> None:
        chance = random.Random(seed + number)  # noqa: S311
        client = service.client(service.admin.token or "")
        while not over.wait(chance.uniform(0.0, 0.8)):
            one = Asked(f"{number}-{len(tally.asked)}", chance.choice((0, 0, 3)))
            tally.asked.append(one)
            try:
                job = client.submit(f"{_COMMAND}{one.exit_code}", name=one.name)
            except requests.RequestException:
                continue
            one.accepted = True
            if chance.random() < 0.4:
                while not over.wait(chance.uniform(0.0, 1.0)):
                    one.cancelled = _cancel(client, job)
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


def _cancel(client: Client, job: Job) -> bool | None:
    """Cancel a job; tells whether it was in time, ``None`` where there was no answer."""
    try:
        response = client.request("PUT", f"jobs/{job['job_id']}/cancel")
    except requests.RequestException:
        return None
    assert response.status_code in (200, 409), response.text
    return response.status_code == 200


def _account_for(service: Service, engine: docker.APIClient, tally: Tally, starts: Counter[str]) -> None:
    """Wait until all is over, and compare it with what was asked."""
    wait_until(
        lambda: all(job["status"] in FINAL for job in _all_jobs(service.admin)),
        _SETTLE_S,
        "every job is over",
    )
    wait_until(lambda: not service.containers(engine), 30, "the containers are gone")
    jobs = _all_jobs(service.admin)
    found = {job["name"]: job for job in jobs}
    assert len(found) == len(jobs), "what was asked once is there twice"
    asked = {one.name: one for one in tally.asked}
    assert {one.name for one in tally.asked if one.accepted} <= set(found) <= set(asked)
    for job in jobs:
        _check_end(job, asked[job["name"]])
        _check_attempts(service, job, starts)
        _check_log(service, job)
    wait_until(lambda: _queue_is_empty(service), 30, "every task is closed")


def _check_end(job: Job, one: Asked) -> None:
    if job["status"] == "cancelled":
        assert one.cancelled is not False, job
    else:
        assert one.cancelled is not True, job
        end = ("failed", 3, "exit code 3") if one.exit_code else ("completed", 0, None)
        assert (job["status"], job["exit_code"], job["error"]) == end, job


def _check_attempts(service: Service, job: Job, starts: Counter[str]) -> None:
    """A command without retries is started once, or not at all where it was cancelled."""
    attempts = service.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"]
    started = sum(item["started_at"] is not None for item in attempts)
    assert all(item["completed_at"] is not None for item in attempts), attempts
    assert starts[job["job_id"]] <= 1, attempts
    assert started <= 1, attempts
    if job["status"] != "cancelled":
        assert (starts[job["job_id"]], started) == (1, 1), attempts
        assert service.admin.artifact_paths(job) == ["kept"]


def _check_log(service: Service, job: Job) -> None:
    lines = service.admin.log(job).decode().splitlines()
    for stream in ("out", "err"):
        found = [line for line in lines if line.startswith(stream)]
        assert found == [f"{stream} {number}" for number in range(len(found))], job
        assert len(found) == LINES or job["status"] == "cancelled", job


def _queue_is_empty(service: Service) -> bool:
    # A task that a dead submitter left is closed when the next job of its queue is claimed.
    service.admin.run("true")
    database = f"file:{service.data_dir / 'corndogs.db'}?mode=ro"
    with closing(sqlite3.connect(database, uri=True)) as connection:
        return not connection.execute("SELECT uuid FROM task").fetchall()


def _all_jobs(client: Client) -> list[Job]:
    jobs: list[Job] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("jobs", limit=100, **cursor)
        jobs += page["jobs"]
        if page["next_cursor"] is None:
            return jobs
        cursor = {"cursor": page["next_cursor"]}
