"""Retention: removing ended jobs by the operator's rules."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.domain.jobs import EndedJob, job_prefix
from reactorcide.jobs import StoredJobs
from reactorcide.jobs.delete import announce_deleted, purge
from reactorcide.lib.clock import now_ms
from reactorcide.lib.records import record
from reactorcide.lib.sizes import format_size

log = logging.getLogger("reactorcide.jobs")

DAY_MS = 86_400_000
_MEASURED_AT_ONCE = 100


@record(kw_only=True)
class Policy:
    """The retention rules for ended jobs; 0 turns a rule off."""

    keep_jobs: int = 0
    """Keep this number of jobs, the last to end."""
    keep_days: int = 0
    """Keep jobs that ended within this number of days."""
    keep_bytes: int = 0
    """Keep the last jobs whose logs and artifacts fit into this size; always the very last one."""


@record
class Removal:
    """A job to remove, and the reason."""

    job_id: str
    completed_at_ms: int
    """For a job of a run, the end of the run."""
    size_bytes: int
    reason: str
    run_id: str | None = None
    """Its run, which is removed with it."""


def what_to_remove(ended: Iterable[EndedJob], policy: Policy, *, now_ms: int) -> list[Removal]:
    """Return the jobs that the policy removes, oldest first; ``jobs`` has the last to end first.

    A job is removed if any rule says so, and then so is every job that ended before it. The jobs of a run,
    which follow each other, are kept or removed together; those of the very last run are kept, however many.
    """
    removals: list[Removal] = []
    remaining_jobs = remaining_bytes = 0
    is_full = is_crowded = False
    for _, of_one in groupby(ended, key=lambda job: job.run_id or job.job_id):
        jobs = list(of_one)
        size_bytes = sum(job.stored_bytes or 0 for job in jobs)
        # After the first job that does not fit all older ones are removed, even small ones, so that no gaps
        # remain.
        is_full = is_full or (0 < policy.keep_bytes < remaining_bytes + size_bytes and remaining_jobs > 0)
        is_crowded = is_crowded or (0 < policy.keep_jobs < remaining_jobs + len(jobs) and remaining_jobs > 0)
        if policy.keep_days and jobs[0].completed_at_ms < now_ms - policy.keep_days * DAY_MS:
            reason = f"it ended more than {policy.keep_days} days ago"
        elif is_crowded:
            reason = f"it is not among the last {policy.keep_jobs} to end"
        elif is_full:
            reason = f"with it the jobs would exceed {format_size(policy.keep_bytes)}"
        else:
            remaining_jobs += len(jobs)
            remaining_bytes += size_bytes
            continue
        removals += [
            Removal(job.job_id, job.completed_at_ms, job.stored_bytes or 0, reason, job.run_id)
            for job in jobs
        ]
    removals.reverse()
    return removals


def plan(context: StoredJobs, policy: Policy) -> list[Removal]:
    """Return the jobs that the policy would remove now, oldest first; changes nothing.

    Only ended, unpinned jobs without a container and without a task are included.
    """
    return what_to_remove(
        (
            job
            if job.stored_bytes is not None
            else replace(job, stored_bytes=_stored_bytes(context, job.job_id))
            for job in context.store.retention.removable()
        ),
        policy,
        now_ms=now_ms(),
    )


def apply(
    context: StoredJobs, policy: Policy, *, by: Actor, stopping: Callable[[], bool] = lambda: False
) -> list[Removal]:
    """Remove the jobs that the policy does not keep, and return them; ends early if ``stopping`` returns
    true.

    ``by`` is for the audit. Each job is checked again: a job that was pinned or deleted meanwhile is skipped.
    So it can run beside a service that does the same, and be repeated. Raises ``ObjectStoreError`` if a job's
    files cannot be removed; for clients that job is removed, and the rest of it is removed later.
    """
    _measure(context, stopping)
    removed: list[Removal] = []
    planned = plan(context, policy)
    for _, of_one in groupby(planned, key=lambda removal: removal.run_id or removal.job_id):
        if stopping():
            break
        removals = list(of_one)
        if not _delete(context, removals, by=by):
            continue
        for removal in removals:
            log.info("job is removed: %s", removal.reason, extra={"job_id": removal.job_id})
            announce_deleted(context, removal.job_id)
            purge(context, removal.job_id)
            removed.append(removal)
    _remove_runs(context, policy, planned, by=by)
    return removed


def _delete(context: StoredJobs, removals: Sequence[Removal], *, by: Actor) -> bool:
    """Delete a job, or a run with all its jobs; returns ``False`` if it was already deleted."""
    at_ms = now_ms()
    run_id = removals[0].run_id
    with suppress(_IsKept), context.store.transaction() as tx:
        for removal in removals:
            if not tx.retention.delete(removal.job_id, now_ms=at_ms):
                raise _IsKept
            tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.JOB_DELETE, subject=removal.job_id))
        if run_id is not None:
            tx.runs.delete(run_id)
            tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.RUN_DELETE, subject=run_id))
        return True
    return False


class _IsKept(Exception):
    """A job was pinned or deleted meanwhile."""


def _remove_runs(context: StoredJobs, policy: Policy, planned: list[Removal], *, by: Actor) -> None:
    """Remove the runs without jobs that are as old as removed jobs."""
    at_ms = now_ms()
    up_to_ms = max((removal.completed_at_ms for removal in planned), default=0)
    if policy.keep_days:
        up_to_ms = max(up_to_ms, at_ms - policy.keep_days * DAY_MS)
    if not up_to_ms:
        return
    with context.store.transaction() as tx:
        for run_id in tx.runs.remove_ended(up_to_ms=up_to_ms):
            tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.RUN_DELETE, subject=run_id))
            log.info("run is removed", extra={"run_id": run_id})


def _measure(context: StoredJobs, stopping: Callable[[], bool]) -> None:
    """Store the size of jobs that have ended since the last call; it does not change any more."""
    while not stopping():
        job_ids = context.store.retention.unmeasured(limit=_MEASURED_AT_ONCE)
        if not job_ids:
            return
        context.store.retention.save_sizes({job_id: _stored_bytes(context, job_id) for job_id in job_ids})


def _stored_bytes(context: StoredJobs, job_id: str) -> int:
    prefix = job_prefix(job_id)
    unsealed_bytes = sum(item.size_bytes for item in context.logs.unsealed(prefix))
    return unsealed_bytes + context.objects.used_bytes(prefix)
