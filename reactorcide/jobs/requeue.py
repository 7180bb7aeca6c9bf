"""Queueing a job again if its task is lost, or was claimed by a worker that died."""

import logging
from time import time_ns

from reactorcide.domain.jobs import Job
from reactorcide.jobs import JobContext, lifecycle, tasks
from reactorcide.jobs.tasks import TASK_CLAIMED, TASK_WAITING

log = logging.getLogger("reactorcide.jobs")

_NS = 1_000_000_000


def check(context: JobContext, job: Job, *, lease_s: float) -> None:
    """Look up the task of a queued job in Corndogs, and queue the job again if it would wait for ever.

    Safe to repeat, also while a worker claims the task: the job's row decides. Raises ``CorndogsError`` if
    the lookup failed; then nothing changes.
    """
    task_id, queue = job.corndogs_task_id or "", job.definition.queue_name
    task = context.corndogs.get_task(task_id, queue)
    if (
        task is None
        or task.queue != queue
        or tasks.is_archived(task)
        or tasks.job_of(task, context.instance_id) != job.job_id
    ):
        lifecycle.task_lost(context, job)
        return
    if task.current_state == TASK_WAITING:
        return
    # Two more leases than its own: by then the clean-up of the queue would have returned it, if that works.
    ends_at_ns = task.update_time_ns + round((task.timeout_s + 2 * lease_s) * _NS)
    if task.timeout_s > 0 and ends_at_ns > time_ns():
        return
    # Claimed and never leased: its worker was killed in between.
    log.info("its task is returned to the queue, because no worker holds it", extra={"job_id": job.job_id})
    context.corndogs.update_task(
        task.uuid,
        queue,
        task.current_state,
        new_state=TASK_WAITING,
        auto_target_state=TASK_CLAIMED,
        timeout_s=-1,
        priority=job.definition.priority,
    )
    context.hints.job_waiting()
