"""Explain why a job waits."""

from collections.abc import Sequence

from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms
from reactorcide.lib.records import record

_LONG_S = 5.0
"""A worker with a free slot claims a job long before this."""


@record
class Explanation:
    """The reason for a job's state, its place in the queue (from 1), and the time of the next try."""

    reason: str
    place: int | None = None
    next_try_at_ms: int | None = None


def explain(context: StoredJobs, job: Job, workers: Sequence[WorkerView]) -> Explanation:
    """Return the reason for the job's state; for a waiting job, what it waits for."""
    if job.is_final:
        return Explanation(f"it has ended: {job.error or job.status}")
    if job.status is JobStatus.RUNNING:
        doing = "it is being prepared" if job.started_at_ms is None else "its command runs"
        return Explanation(f"{doing}, by worker {job.worker_id}{_trouble(job, workers)}")
    place = context.store.queues.ahead_of(job) + 1
    if job.status is not JobStatus.QUEUED:
        # 0 means at once.
        next_try_at_ms = context.store.tasks.next_submit_at_ms(job.job_id) or None
        reason = job.error or "it is about to be handed to the queue"
        if job.attempt > 1 and job.error is None:
            last = context.store.attempts.of_job(job.job_id)[-1]
            reason = f"attempt {last.attempt} ended ({last.error}), the next one is about to be queued"
        return Explanation(reason, place, next_try_at_ms)
    queue = job.definition.queue_name
    able = [view for view in workers if view.concurrency > 0 and (not view.queues or queue in view.queues)]
    if not able:
        return Explanation(f"no worker takes jobs from the queue {queue}", place)
    trouble = [view.trouble for view in able if view.trouble is not None]
    if len(trouble) == len(able):
        return Explanation(trouble[0], place)
    if all(len(view.running_job_ids) >= view.concurrency for view in able):
        return Explanation("all workers are busy", place)
    queued_s = (now_ms() - (job.queued_at_ms or job.updated_at_ms)) / 1000
    if queued_s < _LONG_S:
        return Explanation("a worker is about to take it", place)
    return Explanation(
        f"a worker has a free slot, and the queue has not handed the job out for {queued_s:.0f} s; the "
        "service looks for its task in the queue, and queues the job again if the task is lost",
        place,
    )


def _trouble(job: Job, workers: Sequence[WorkerView]) -> str:
    """Return what to add for a job whose worker is not connected, or has trouble of its own."""
    view = next((view for view in workers if view.worker_id == job.worker_id), None)
    if view is None:
        return ""
    lost_after_s = view.away_lost_after_s
    if lost_after_s is None:
        return "" if view.trouble is None else f", which takes no other jobs: {view.trouble}"
    has_begun = job.started_at_ms is not None
    is_repeated = not has_begun or job.retries_used < job.definition.retries
    then = "is repeated" if is_repeated else "fails, as it has no retries left"
    return (
        ", which is not connected; unless it comes back, the attempt counts as lost after "
        f"{lost_after_s:g} s (--lost-after) and a margin, and the job {then}"
    )
