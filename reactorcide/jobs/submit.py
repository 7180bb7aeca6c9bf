"""Submitting a job: commit it, hand it to Corndogs, wake the worker."""

import logging
import random

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import Conflict, CorndogsError, KeyTaken, StoreError
from reactorcide.domain.jobs import Job, JobStatus, RequestKey
from reactorcide.jobs import JobContext, lifecycle, sources, tasks
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.notifier import ANY_JOB
from reactorcide.logs.masking import hide_in_own_log
from reactorcide.store import Records

log = logging.getLogger("reactorcide.jobs")

SUBMIT_GRACE_MS = 10_000
"""After this time the sweep assumes that the submitter of a ``submitted`` job died."""
_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 60.0


def submit(
    context: JobContext,
    user: User,
    definition: JobDefinition,
    *,
    rerun_of: str | None = None,
    key: RequestKey | None = None,
) -> Job:
    """Create a job and return it, usually ``queued``.

    When this returns the job is on disk. If submitting to Corndogs fails, it is ``submit_failed`` and the
    sweep submits it again. Raises ``InvalidInput`` if its source may not be used (``NotFound`` or
    ``Forbidden`` for another job's artifacts), ``StoreError`` if it could not be committed, and ``KeyTaken``
    if the user has submitted another one with that ``key``; then there is no job.
    """
    hide_in_own_log(definition)
    sources.check(context, user, definition)
    context.rules.check(definition)
    created_at_ms = now_ms()
    job = Job(
        job_id=new_id(),
        user_id=user.user_id,
        definition=definition,
        status=JobStatus.SUBMITTED,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
        rerun_of=rerun_of,
    )
    entry = AuditEntry(
        at_ms=created_at_ms,
        by=user.actor,
        action=Action.JOB_SUBMIT if rerun_of is None else Action.JOB_RERUN,
        subject=job.job_id,
    )

    def write(tx: Records) -> None:
        if key is not None:
            tx.request_keys.add(key, user.user_id, job.job_id, now_ms=created_at_ms)
        tx.jobs.add(job, next_submit_at_ms=created_at_ms + SUBMIT_GRACE_MS)
        tx.audit.add(entry)

    context.store.write(write)
    context.notifier.announce(ANY_JOB)
    crashpoints.reached("submit-committed")
    try:
        return enqueue(context, job, failures=0) or context.store.jobs.get(job.job_id)
    except StoreError as exc:
        # After an error the client would assume that there is no job, and submit another one.
        log.warning("it is accepted, and the sweep will queue it: %s", exc, extra={"job_id": job.job_id})
        return job


def submit_once(
    context: JobContext, user: User, definition: JobDefinition, key: RequestKey
) -> tuple[Job, bool]:
    """Submit a job unless ``user`` has already used this key; returns the job, and whether it is new.

    Safe to repeat and to call concurrently: one job is created. A key expires after a day. Raises
    ``Conflict`` if the key was used for something else, or its job has been deleted; and as ``submit``.
    """
    earlier = _submitted_with(context, user, key)
    if earlier is None:
        try:
            return submit(context, user, definition, key=key), True
        except KeyTaken:
            # Used by the same request, sent twice at the same time.
            earlier = _submitted_with(context, user, key)
            if earlier is None:
                raise
    return earlier, False


def _submitted_with(context: JobContext, user: User, key: RequestKey) -> Job | None:
    stored = context.store.request_keys.find(user.user_id, key, now_ms=now_ms())
    if stored is None:
        return None
    job_id, is_same = stored
    if not is_same:
        raise Conflict("this Idempotency-Key was used for something else; choose another key")
    job = context.store.jobs.find(job_id)
    if job is None or job.deleted:
        raise Conflict("the job of this Idempotency-Key was deleted; choose another key")
    return job


def enqueue(context: JobContext, job: Job, *, failures: int) -> Job | None:
    """Enqueue a committed job in Corndogs; ``None`` if its status has changed meanwhile.

    Repeating may leave a second task in Corndogs; the worker that claims a task which is not in the row
    closes it.
    """
    definition = job.definition
    try:
        task = context.corndogs.submit_task(
            definition.queue_name,
            current_state=tasks.TASK_WAITING,
            auto_target_state=tasks.TASK_CLAIMED,
            # A task with a timeout can time out while it waits.
            timeout_s=-1,
            payload=tasks.payload(context.instance_id, job.job_id),
            priority=definition.priority,
        )
    except CorndogsError as exc:
        delay_s = min(_FIRST_DELAY_S * 2.0 ** min(failures, 10), _MAX_DELAY_S)
        return lifecycle.submit_failed(
            context,
            job.job_id,
            f"not queued yet, will be retried: {exc}",
            failures=failures + 1,
            # Spread randomly, so that a thousand jobs do not retry at the same moment.
            delay_s=delay_s * random.uniform(0.8, 1.2),  # noqa: S311  # spreading, not secrecy
        )
    crashpoints.reached("submit-task-made")
    queued = lifecycle.queued(context, job.job_id, task.uuid)
    if queued is None:
        _cancel_if_moved_on(context, job.job_id, task.uuid)
    context.hints.job_waiting()
    return queued


def _cancel_if_moved_on(context: JobContext, job_id: str, task_id: str) -> None:
    """Close a task whose job ended before its row had the task's id."""
    current = context.store.jobs.get(job_id)
    if not current.is_final or current.corndogs_task_id == task_id:
        return
    try:
        context.corndogs.cancel_task(task_id, current.definition.queue_name, tasks.TASK_WAITING)
    except CorndogsError as exc:
        # The worker that claims it closes it.
        log.warning("its task stays open for now: %s", exc, extra={"job_id": job_id})
