"""Remove the runs, jobs and caches of a removed project."""

from reactorcide.jobs import StoredJobs, caches
from reactorcide.jobs.delete import announce_deleted, purge_ended
from reactorcide.lib.clock import now_ms

_RUNS_AT_ONCE = 20


def remove_leftovers(context: StoredJobs) -> None:
    """Remove the runs of removed projects. Repeating and concurrent calls are safe.

    There may be many, so each transaction removes some. After an interruption the next call continues.
    """
    while run_ids := context.store.runs.of_no_project(limit=_RUNS_AT_ONCE):
        _remove_runs(context, run_ids)


def remove_caches(context: StoredJobs, project_id: str) -> None:
    """Remove the caches of a project; repeating is harmless."""
    while page := context.store.caches.page(project_id, limit=_RUNS_AT_ONCE):
        for cache in page:
            caches.drop(context, cache.cache_id)


def _remove_runs(context: StoredJobs, run_ids: list[str]) -> None:
    at_ms = now_ms()
    job_ids: list[str] = []
    with context.store.transaction() as tx:
        for run_id in run_ids:
            for job_id in tx.runs.jobs(run_id):
                tx.jobs.delete(job_id, now_ms=at_ms)
                job_ids.append(job_id)
            tx.runs.delete(run_id)
    for run_id in run_ids:
        context.notifier.announce(run_id)
    for job_id in job_ids:
        announce_deleted(context, job_id)
        purge_ended(context, job_id)
