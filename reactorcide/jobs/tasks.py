"""The task of a job in Corndogs: its payload, its lease, its return and its end.

Answers of Corndogs are not trusted: a task may be of any program, with any content.
"""

import json
import logging

from reactorcide.corndogs.task import Corndogs, Task
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable
from reactorcide.domain.jobs import Job
from reactorcide.lib.ids import is_id

log = logging.getLogger("reactorcide.jobs")

TASK_WAITING = "submitted"
"""Corndogs' state of a waiting task."""
TASK_CLAIMED = "submitted-working"
"""Corndogs' state of a task that a worker holds."""

_COMPLETED, _CANCELED = "completed", "canceled"
_MAX_PAYLOAD_BYTES = 1000
"""Ours have about 150 bytes. A longer payload is foreign, and is not parsed."""


def payload(instance_id: str, job_id: str) -> bytes:
    """Return the payload of a task: the job's id, and nothing secret."""
    return json.dumps({"job_id": job_id, "job_type": "run", "instance": instance_id}).encode()


def job_of(task: Task, instance_id: str) -> str | None:
    """Return the id of a task's job; ``None`` for a foreign task."""
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
    """Return the leased task of a running job; ``None`` if the row has none."""
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
    """Return whether the task will not be handed out again."""
    return task.current_state in (_COMPLETED, _CANCELED)


def lease(corndogs: Corndogs, task: Task, timeout_s: float) -> Task | None:
    """Lease a claimed task: after ``timeout_s`` it returns to the state that it was claimed from.

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
    """Complete or cancel a task, so that it is not handed out again; safe to repeat.

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

    A server always refuses if its archive has the task already: a concurrent renewal has revived it. Then it
    is put into a state that no worker claims.
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
        # It refuses every change: an outage, not a problem of this task.
        raise refused from None
    log.warning("Corndogs does not archive the task %s, so it was only marked as %s", task_id, final_state)
