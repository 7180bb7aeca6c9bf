"""Attempts of workers that are not heard of: given up late enough, and run again only where that is safe."""

from functools import partial

import pytest

from reactorcide.domain.audit import operator
from reactorcide.domain.errors import StoreError
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.workers import AttemptLease, WorkerSession
from reactorcide.jobs import adopt, lifecycle
from reactorcide.jobs.explain import explain
from reactorcide.jobs.remote import registry
from reactorcide.jobs.remote.artifacts import StoredArtifacts
from reactorcide.jobs.remote.attempts import LeasedAttempts
from reactorcide.jobs.remote.lost import LostAttempts
from reactorcide.jobs.remote.registry import MIN_SECRET_CHARS
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.store.database import Database
from tests.support.waiting import wait_until
from tests.worker.conftest import House

LOST_AFTER_S, GRACE_S, MARGIN_S, LEASE_S = 100.0, 10.0, 30.0, 60.0
PATIENCE_S = LOST_AFTER_S + GRACE_S + MARGIN_S


class Watched:
    """The service's watch of a worker's attempts, with a clock that the test sets."""

    def __init__(self, house: House) -> None:
        self.context = house.context
        self.now = 1000.0
        limits = {"max_artifacts": 10, "max_artifact_bytes": 1 << 20}
        artifacts = StoredArtifacts(house.context.objects, limits)
        attempts = LeasedAttempts(house.context, lease_s=60, max_log_bytes=1 << 20, artifacts=artifacts)
        self._lost = LostAttempts(
            house.context,
            attempts,
            grace_s=GRACE_S,
            lease_s=LEASE_S,
            own_worker_id=lambda: "embedded-own",
            clock=lambda: self.now,
        )

    def claimed(self, job: Job) -> Job:
        """Return the job with an attempt of a worker on another machine."""
        lease = AttemptLease("0" * 64, LOST_AFTER_S)
        return lifecycle.claim(self.context, job.job_id, new_id(), "far-away", lease)

    def after(self, seconds: float) -> None:
        """Look after a time."""
        self.now += seconds
        self._lost.look()


def _is_past(at_ms: int) -> bool:
    return now_ms() > at_ms


def handed_over(watched: Watched, job: Job) -> Job:
    claimed = watched.claimed(job)
    lifecycle.handing_over(watched.context, claimed, "c", container_started_at="then", at_ms=1, log_offset=0)
    return claimed


@pytest.mark.parametrize(
    ("has_begun", "retries", "status", "attempt"),
    [
        (False, 0, JobStatus.SUBMITTED, 2),
        (True, 0, JobStatus.FAILED, 1),
        (True, 1, JobStatus.SUBMITTED, 2),
    ],
)
def test_after_the_handover_only_retries_run_it_again(
    house: House, has_begun: bool, retries: int, status: JobStatus, attempt: int
) -> None:
    watched, job = Watched(house), house.submit(retries=retries)
    if has_begun:
        handed_over(watched, job)
    else:
        claimed = watched.claimed(job)
        # Else it was never taken.
        wait_until(partial(_is_past, now_ms()), 1, "another millisecond begins")
        adopt.stamp(watched.context, [claimed])
    watched.after(0)
    watched.after(PATIENCE_S)
    assert house.job(job).status is JobStatus.RUNNING
    watched.after(1)
    ended = house.job(job)
    assert (ended.status, ended.attempt) == (status, attempt)
    first = house.context.store.attempts.of_job(job.job_id)[0]
    assert first.error == "worker far-away was not heard of for more than 100 s (--lost-after)"
    # Its worker reports later: it is no more its own.
    assert house.context.store.leases.find(job.job_id, 1, "far-away", "0" * 64) is None


def test_an_attempt_that_its_worker_does_not_take_is_given_back(house: House) -> None:
    watched, job, begun = Watched(house), house.submit(), house.submit()
    watched.claimed(job)
    handed_over(watched, begun)
    watched.after(0)
    watched.after(LEASE_S)
    assert house.job(job).attempt == 1
    watched.after(1)
    given_back = house.job(job)
    assert (given_back.status, given_back.attempt) == (JobStatus.SUBMITTED, 2)
    assert (given_back.preparation_failures, given_back.killed_preparations) == (0, 1)
    first = house.context.store.attempts.of_job(job.job_id)[0]
    assert first.error == "worker far-away did not take it within 60 s"
    assert house.job(begun).attempt == 1
    # The worker comes after all: nothing may begin any more.
    assert house.context.store.leases.find(job.job_id, 1, "far-away", "0" * 64) is None


def test_a_renewal_begins_the_time_anew_and_the_own_worker_adopts_no_other(house: House) -> None:
    watched, job = Watched(house), house.submit()
    claimed = watched.claimed(job)
    for _ in range(3):
        watched.after(PATIENCE_S - 1)
        adopt.stamp(house.context, [claimed])
        # Heartbeats are compared, in milliseconds.
        [heartbeat] = house.context.store.leases.heartbeats()
        wait_until(partial(_is_past, heartbeat.at_ms), 1, "another millisecond begins")
    watched.after(1)
    assert house.job(job).status is JobStatus.RUNNING
    assert adopt.unfinished(house.context, "embedded", lease_s=0.0) == ([], [])


@pytest.mark.parametrize(("retries", "then"), [(0, "fails, as it has no retries left"), (1, "is repeated")])
def test_why_says_what_happens_to_a_job_whose_worker_is_away(house: House, retries: int, then: str) -> None:
    watched, job = Watched(house), house.submit(retries=retries)
    context = house.context
    worker_id, token = registry.add(context, "far-away", [], by=operator())
    registry.register(context, token, "s" * MIN_SECRET_CHARS)
    worker = registry.authenticate(context, "s" * MIN_SECRET_CHARS)
    session = WorkerSession(
        session_id=new_id(),
        host="there",
        version="0",
        protocol=1,
        concurrency=1,
        queues=(),
        lost_after_s=LOST_AFTER_S,
    )
    registry.begin_session(context, worker, session)
    claimed = lifecycle.claim(context, job.job_id, new_id(), worker_id, AttemptLease("0" * 64, LOST_AFTER_S))
    lifecycle.handing_over(context, claimed, "c", container_started_at="then", at_ms=1, log_offset=0)
    lifecycle.started(context, claimed, at_ms=now_ms())

    def why(away_after_s: float) -> str:
        return explain(context, house.job(job), registry.views(context, away_after_s=away_after_s)).reason

    assert why(60) == f"its command runs, by worker {worker_id}"
    assert "is not connected; unless it comes back, the attempt counts as lost after 100 s" in why(-1)
    assert why(-1).endswith(f"the job {then}")
    watched.after(0)
    watched.after(PATIENCE_S + 1)
    assert "was not heard of for more than 100 s (--lost-after)" in why(60)


def test_jobs_of_a_lost_service_run_again_and_the_own_ones_go_on(house: House) -> None:
    watched, jobs = Watched(house), [house.submit() for _ in range(2)]
    for job, worker_id in zip(jobs, ("embedded-own", "embedded-other"), strict=True):
        lifecycle.claim(house.context, job.job_id, new_id(), worker_id, lost_after_s=LOST_AFTER_S)
    watched.after(0)
    watched.after(PATIENCE_S + 1)
    assert [(house.job(job).status, house.job(job).attempt) for job in jobs] == [
        (JobStatus.RUNNING, 1),
        (JobStatus.SUBMITTED, 2),
    ]
    # It comes back: its worker hears that the attempt is not its own any more.
    keys = [(job.job_id, 1) for job in jobs]
    assert adopt.ended_elsewhere(house.context, "embedded-other", keys[1:]) == {keys[1]}
    assert adopt.ended_elsewhere(house.context, "embedded-own", keys[:1]) == set()
    ours, others = adopt.unfinished(house.context, "embedded-other", lease_s=None)
    assert (ours, [item.job.job_id for item in others]) == ([], [jobs[0].job_id])


def test_an_outage_of_the_database_begins_the_time_anew(house: House) -> None:
    watched, job = Watched(house), house.submit()
    lifecycle.claim(house.context, job.job_id, new_id(), "embedded-other", lost_after_s=LOST_AFTER_S)
    watched.after(0)
    watched.after(PATIENCE_S)
    if not isinstance(house.database, Database):
        pytest.skip("a file is moved away")
    house.database.close()
    # As a server that is away for a moment.
    path = house.database.path
    path.rename(path.with_name("away"))
    path.mkdir()
    with pytest.raises(StoreError):
        watched.after(1)
    path.rmdir()
    path.with_name("away").rename(path)
    watched.after(1)
    watched.after(PATIENCE_S)
    assert house.job(job).status is JobStatus.RUNNING
    watched.after(1)
    assert house.job(job).attempt == 2
