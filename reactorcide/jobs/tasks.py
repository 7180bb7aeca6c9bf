"""The task of a job in Corndogs: which job it is for, how it is leased, given back and ended.

What Corndogs answers is not trusted: a task may be anybody's, and hold anything.
"""

import json
import logging

from reactorcide.corndogs.task import Corndogs, Task
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable
from reactorcide.domain.jobs import Job
from reactorcide.lib.ids import is_id

log = logging.getLogger("reactorcide.jobs")

TASK_WAITING = "submitted"
"""Corndogs' state of a task that waits."""
TASK_CLAIMED = "submitted-working"
"""Corndogs' state of a task that a worker holds."""

_COMPLETED, _CANCELED = "completed", "canceled"
_MAX_PAYLOAD_BYTES = 1000
"""Ours have about 150. What is longer is somebody else's, and is not parsed."""


def payload(instance_id: str, job_id: str) -> bytes:
    """Return what a task carries: enough to find the job, nothing that is secret."""
    return json.dumps({"job_id": job_id, "job_type": "run", "instance": instance_id}).encode()


def job_of(task: Task, instance_id: str) -> str | None:
    """Return the id of the job that a task is for; ``None`` for a task of somebody else."""
    if len(task.payload) > _MAX_PAYLOAD_BYTES:
        return None
    try:
        content = json.loads(task.payload)
        if content["instance"] != instance_id or content["job_type"] != "run":
            return None
        job_id = content["job_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return job_id if isinstance(job_id, str) and is_id(job_id) else None


def claimed_by(job: Job) -> Task | None:
    """Return the task of a running job as its worker has left it; ``None`` if the row names none."""
    if job.corndogs_task_id is None:
        return None
    return Task(
        uuid=job.corndogs_task_id,
        queue=job.definition.queue_name,
        current_state=TASK_CLAIMED,
        auto_target_state=TASK_WAITING,
        submit_time_ns=0,
        update_time_ns=0,
        timeout_s=0,
        payload=b"",
        priority=job.definition.priority,
    )


def is_archived(task: Task) -> bool:
    """Return whether nobody will be handed the task any more."""
    return task.current_state in (_COMPLETED, _CANCELED)


def lease(corndogs: Corndogs, task: Task, timeout_s: float) -> Task | None:
    """Have a claimed task come back by itself after ``timeout_s``, to where it was claimed from.

    ``None`` means that no such task is live. Raises ``CorndogsError``.
    """
    return corndogs.update_task(
        task.uuid,
        task.queue,
        task.current_state,
        new_state=task.current_state,
        auto_target_state=TASK_WAITING,
        timeout_s=max(1, round(timeout_s)),
        priority=task.priority,
    )


def end(corndogs: Corndogs, task_id: str, queue: str, state: str, *, cancelled: bool) -> None:
    """Complete or cancel a task, so that nobody is handed it any more; repeating is harmless.

    Raises ``CorndogsError``: ``CorndogsUnavailable`` if there was no answer.
    """
    call = corndogs.cancel_task if cancelled else corndogs.complete_task
    try:
        call(task_id, queue, state)
    except CorndogsUnavailable:
        raise
    except CorndogsError as refused:
        _end_refused(corndogs, task_id, queue, cancelled=cancelled, refused=refused)


def _end_refused(
    corndogs: Corndogs, task_id: str, queue: str, *, cancelled: bool, refused: CorndogsError
) -> None:
    """End a task that Corndogs refuses to archive.

    A server refuses that for ever where the task is in its archive already: a renewal that came at the same
    time as its end has brought it back to life. There it is put into a state that nobody claims.
    """
    final_state = _CANCELED if cancelled else _COMPLETED
    task = corndogs.get_task(task_id, queue)
    if task is None or is_archived(task):
        return
    try:
        corndogs.update_task(
            task_id,
            queue,
            task.current_state,
            new_state=final_state,
            auto_target_state=final_state,
            timeout_s=0,
            priority=task.priority,
        )
    except CorndogsUnavailable:
        raise
    except CorndogsError:
        # It takes no change at all: that is an outage, and not this task's trouble.
        raise refused from None
    log.warning("Corndogs does not archive the task %s, so it was only marked as %s", task_id, final_state)
