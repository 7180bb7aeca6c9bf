"""PostgreSQL in place of the file of SQLite, on the same disk and as durable."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, alone, interleaved, ratio
from benchmarks.million import COUNT, VALUES, add_one, jobs_of, slowest_page_ms
from benchmarks.throughput import submitting
from reactorcide.store import Store
from reactorcide.store.postgresql import PostgreSQLDatabase
from reactorcide.store.vault import Vault
from tests.support.postgresql import DURABLE, Cluster

_NUMBER_OF_ID = "lpad(to_hex(i), 12, '0')"
_MULTIPLY = """
    INSERT INTO job ({columns}) SELECT {values} FROM job, generate_series(1, {jobs:d}) AS numbers(i)
    """


def submissions(image: str, *, quick: bool) -> Figure:
    """Compare the acknowledged submissions per second of 8 clients with those on SQLite, in turn."""
    with (
        _cluster() as cluster,
        submitting(image, "--database", cluster.new_url(), quick=quick) as ours,
        submitting(image, quick=quick) as on_sqlite,
    ):
        rates = interleaved(1 if quick else 7, ours, on_sqlite)
    return ratio("submissions on PostgreSQL, of SQLite", *rates, unit="/s", mark=0.6, at_least=True)


def lists(*, quick: bool) -> Figure:
    """Return the time of the first page and the total with the slowest filter."""
    jobs = jobs_of(quick=quick)
    with _cluster() as cluster, tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-") as directory:
        database = PostgreSQLDatabase(cluster.new_url())
        try:
            database.migrate()
            store = Store(database, Vault.beside(Path(directory, "reactorcide.db")))
            add_one(store)
            _multiply(database, jobs)
            slowest_ms = slowest_page_ms(store, quick=quick)
        finally:
            database.close()
    return alone(f"a page of {jobs:,} jobs on PostgreSQL", [slowest_ms], unit="ms", mark=10)


def _multiply(database: PostgreSQLDatabase, jobs: int) -> None:
    values = VALUES | {"job_id": f"'01900000-0000-7000-8000-' || {_NUMBER_OF_ID}"}
    with database.transaction() as tx:
        tx.execute("SET LOCAL statement_timeout = 0")
        indexes = tx.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'job' AND indexname <> 'job_pkey'"
        ).fetchall()
        # Created again afterwards, which is faster than updating them.
        for name, _ in indexes:
            tx.execute(f"DROP INDEX {name}")
        columns = [
            name
            for (name,) in tx.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'job'"
            )
        ]
        written = ", ".join(values.get(name, name) for name in columns).replace(":jobs", str(jobs - 1))
        tx.execute(_MULTIPLY.format(columns=", ".join(columns), values=written, jobs=jobs - 1))
        for _, statement in (*indexes, *((None, statement) for statement in COUNT)):
            tx.execute(statement)
    # As the server does by itself, a minute after that.
    database.shrink()
    with database.transaction() as tx:
        tx.execute("ANALYZE")


@contextlib.contextmanager
def _cluster() -> Iterator[Cluster]:
    """Run a server whose commits survive a crash of the machine."""
    cluster = Cluster(*DURABLE)
    try:
        yield cluster
    finally:
        cluster.remove()
