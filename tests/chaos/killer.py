"""Kills a service at random while clients submit and cancel jobs, then accounts for every one of them."""

import random
import threading
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import docker
import requests

from tests.support.client import Client, Job
from tests.support.service import Service
from tests.support.waiting import wait_until

LINES = 60
_CLIENTS = 2
_SETTLE_S = 120.0

# Long enough to live through a kill and a start; each attempt leaves its number.
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
class Submitted:
    """A job as its client knows it."""

    job: Job
    exit_code: int
    cancelled: bool | None = False
    """``None`` where the answer to the cancel was lost."""


@dataclass
class Tally:
    """What was done, for the figures."""

    kills: int = 0
    submitted: list[Submitted] = field(default_factory=list)
    lost_answers: int = 0

    def __str__(self) -> str:
        cancels = sum(one.cancelled is not False for one in self.submitted)
        return f"{len(self.submitted)} jobs accepted, {cancels} cancels, {self.kills} kills"


def rampage(service: Service, duration_s: float, seed: int) -> Tally:
    """Submit, cancel and kill for a while; returns with the service up."""
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    tally, lock, over = Tally(), threading.Lock(), threading.Event()

    def submit_and_cancel(client: Client, chance: random.Random) -> None:
        while not over.wait(chance.uniform(0.0, 0.8)):
            exit_code = chance.choice((0, 0, 3))
            try:
                one = Submitted(client.submit(f"{_COMMAND}{exit_code}"), exit_code)
            except requests.RequestException:
                with lock:
                    tally.lost_answers += 1
                continue
            with lock:
                tally.submitted.append(one)
            if chance.random() < 0.25:
                over.wait(chance.uniform(0.0, 2.0))
                one.cancelled = _cancel(client, one.job)

    clients = [service.client(service.admin.token or "") for _ in range(_CLIENTS)]
    threads = [
        threading.Thread(target=submit_and_cancel, args=(client, random.Random(seed + number)))  # noqa: S311
        for number, client in enumerate(clients, 1)
    ]
    for thread in threads:
        thread.start()
    ends_at = monotonic() + duration_s
    try:
        while monotonic() < ends_at:
            # The interval is the randomness of it, and waits for nothing.
            over.wait(chance.uniform(0.1, 3.0))
            service.kill()
            tally.kills += 1
            service.start()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return tally


def _cancel(client: Client, job: Job) -> bool | None:
    """Cancel a job; tells whether it was in time, ``None`` where that is not known."""
    try:
        response = client.request("PUT", f"jobs/{job['job_id']}/cancel")
    except requests.RequestException:
        return None
    assert response.status_code in (200, 409), response.text
    return response.status_code == 200


def account_for(service: Service, engine: docker.APIClient, tally: Tally) -> None:
    """Wait until all is over, and see that nothing was lost, doubled or left."""
    jobs: dict[str, Job] = {}

    def all_over() -> bool:
        jobs.clear()
        jobs.update((job["job_id"], job) for job in _all_jobs(service.admin))
        return all(job["status"] in ("completed", "failed", "cancelled") for job in jobs.values())

    wait_until(all_over, _SETTLE_S, "every job is over")
    assert {one.job["job_id"] for one in tally.submitted} <= set(jobs)
    # Where the answer was lost there may be a job or not, but nowhere two.
    assert len(jobs) <= len(tally.submitted) + tally.lost_answers
    for one in tally.submitted:
        job = jobs[one.job["job_id"]]
        if job["status"] == "cancelled":
            assert one.cancelled is not False, job
        else:
            assert one.cancelled is not True, job
            assert (job["exit_code"], job["error"]) == _end(one.exit_code), job
    wait_until(lambda: not service.containers(engine), 30, "the containers are gone")
    for job in jobs.values():
        _check_attempts(service, job)
        _check_log(service, job)
    metrics = service.admin.request("GET", "/metrics").text
    assert 'reactorcide_queue_depth{queue="default"}' not in metrics


def _end(exit_code: int) -> tuple[int, str | None]:
    return exit_code, f"exit code {exit_code}" if exit_code else None


def _check_attempts(service: Service, job: Job) -> None:
    """A command without retries has been started once at most."""
    attempts = service.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"]
    started = [item for item in attempts if item["started_at"] is not None]
    assert len(started) <= 1, attempts
    assert all(item["completed_at"] is not None for item in attempts), attempts
    if job["status"] != "cancelled":
        assert len(started) == 1, attempts
        assert service.admin.artifact_paths(job) == ["kept"]


def _check_log(service: Service, job: Job) -> None:
    lines = service.admin.log(job).decode().splitlines()
    for stream in ("out", "err"):
        found = [line for line in lines if line.startswith(stream)]
        assert found == [f"{stream} {number}" for number in range(len(found))], job
        assert len(found) == LINES or job["status"] == "cancelled", job


def _all_jobs(client: Client) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("jobs", limit=100, **cursor)
        jobs += page["jobs"]
        if page["next_cursor"] is None:
            return jobs
        cursor = {"cursor": page["next_cursor"]}
