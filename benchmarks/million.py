"""Lists and a scrape of the metrics with a million jobs."""

import contextlib
import sqlite3
import tempfile
from functools import cache, partial
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, alone, seconds
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.jobs import Job, JobFilter, JobStatus
from reactorcide.lib.ids import new_id
from reactorcide.metrics import Metrics
from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.vault import Vault

_FILTERS = {
    "none": JobFilter(),
    "completed": JobFilter(statuses=[JobStatus.COMPLETED]),
    "failed": JobFilter(statuses=[JobStatus.FAILED]),
    "cancelled, all of them old": JobFilter(statuses=[JobStatus.CANCELLED]),
    "queued": JobFilter(statuses=[JobStatus.QUEUED]),
    "running": JobFilter(statuses=[JobStatus.RUNNING]),
    "completed or cancelled": JobFilter(statuses=[JobStatus.COMPLETED, JobStatus.CANCELLED]),
    "a queue": JobFilter(queue_name="q3"),
    "an old queue": JobFilter(queue_name="old"),
    "a user": JobFilter(user_id="u7"),
    "a common source": JobFilter(source_type="git"),
    "a rare source": JobFilter(source_type="copy"),
    "a common prefix": JobFilter(name_prefix="bu"),
    "a name": JobFilter(name_prefix="build-7"),
    "an old name": JobFilter(name_prefix="nightly"),
    "pinned": JobFilter(pinned=True),
    "not pinned": JobFilter(pinned=False),
}
_PAGE = 51
_PAGE_CHARS = 20_000

# Copies of one job.
_MULTIPLY = """
    WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :jobs)
    INSERT INTO job ({columns})
    SELECT {values} FROM job, numbers
    """
# Spread over users, queues and names; only the oldest tenth has some of the values.
VALUES = {
    "job_id": "printf('01900000-0000-7000-8000-%012x', i)",
    "created_at_ms": "created_at_ms + i",
    "completed_at_ms": "CASE WHEN i <= :jobs - 300 THEN created_at_ms + i + 1 END",
    "user_id": "'u' || (i % 50)",
    "queue_name": "CASE WHEN i < :jobs / 10 AND i % 9 = 0 THEN 'old' ELSE 'q' || (i % 20) END",
    "name": "CASE WHEN i < :jobs / 10 AND i % 7 = 0 THEN 'nightly' ELSE 'build-' || (i % 200) END",
    "source_type": "CASE WHEN i % 200 = 0 THEN 'copy' ELSE 'git' END",
    "pinned": "i % 1000 = 0",
    "status": "CASE WHEN i > :jobs - 100 THEN 'running' WHEN i > :jobs - 300 THEN 'queued' "
    "WHEN i < :jobs / 10 AND i % 5 = 0 THEN 'cancelled' WHEN i % 12 = 0 THEN 'failed' ELSE 'completed' END",
}
_KEY = "user_id, queue_name, status, source_type, pinned"
COUNT = (
    "DELETE FROM job_count",
    "DELETE FROM job_name_count",
    f"INSERT INTO job_count SELECT {_KEY}, COUNT(*) FROM job GROUP BY {_KEY}",  # noqa: S608  # our own text
    "INSERT INTO job_name_count SELECT name, user_id, COUNT(*) FROM job GROUP BY name, user_id",
)


def lists(*, quick: bool) -> Figure:
    """Return the time of the first page and the total with the slowest filter."""
    slowest_ms = slowest_page_ms(_store(jobs_of(quick=quick)), quick=quick)
    name = f"a page of {jobs_of(quick=quick):,} jobs, the slowest filter"
    return alone(name, [slowest_ms], unit="ms", mark=10)


def slowest_page_ms(store: Store, *, quick: bool) -> float:
    """Return the median of the filter whose first page and total take longest."""
    medians = []
    for job_filter in _FILTERS.values():
        page = partial(store.lists.page, job_filter, limit=_PAGE, max_chars=_PAGE_CHARS)
        times_s = [seconds(page) for _ in range(11 if quick else 51)]
        medians.append(median(times_s) * 1000)
    return max(medians)


def scrape(*, quick: bool) -> Figure:
    """Return the time to render the metrics."""
    metrics = Metrics()
    metrics.add_job_counts(_store(jobs_of(quick=quick)).queues.counts)
    times_s = [seconds(metrics.render) for _ in range(11 if quick else 51)]
    name = f"a scrape with {jobs_of(quick=quick):,} jobs"
    return alone(name, [time_s * 1000 for time_s in times_s], unit="ms", mark=50)


def jobs_of(*, quick: bool) -> int:
    """Return how many jobs the lists have."""
    return 20_000 if quick else 1_000_000


@cache
def _store(jobs: int) -> Store:
    """Return a store with so many jobs, written directly to its database; it is removed at exit."""
    directory = tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-")
    _directories.append(directory)
    database = Database(Path(directory.name, "reactorcide.db"))
    database.migrate()
    store = Store(database, Vault.beside(database.path))
    add_one(store)
    with contextlib.closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        # Created again afterwards, which is faster than updating them.
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'index' AND tbl_name = 'job' AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(job)")]
        multiply = _MULTIPLY.format(
            columns=", ".join(columns), values=", ".join(VALUES.get(name, name) for name in columns)
        )
        connection.execute(multiply, {"jobs": jobs - 1})
        for _, sql in indexes:
            connection.execute(sql)
        for statement in COUNT:
            connection.execute(statement)
    return store


def add_one(store: Store) -> None:
    """Add the job that is copied."""
    definition = JobDefinition(
        name="n",
        job_command="make test",
        source_type="git",
        git_url="https://example.test/r",
        runner_image="i",
    )
    job = Job(
        job_id=new_id(),
        user_id="u",
        definition=definition,
        status=JobStatus.SUBMITTED,
        created_at_ms=1_700_000_000_000,
        updated_at_ms=1_700_000_000_000,
    )
    store.jobs.add(job, next_submit_at_ms=0)


_directories: list["tempfile.TemporaryDirectory[str]"] = []
