"""Submissions and claims per second, without containers."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from time import perf_counter, time_ns

from benchmarks.figures import Figure, alone
from benchmarks.service import Client, serving
from reactorcide.corndogs.direct import DirectCorndogs
from reactorcide.corndogs.storage import TaskStorage

_QUEUE = "benchmark"
_CLIENTS = 8

# Copies of the one existing task, with ids and times of their own. Submitting so many would take minutes,
# and is not measured.
_MULTIPLY = """
    WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ?)
    INSERT INTO task (uuid, queue, current_state, auto_target_state, submit_time, update_time, timeout,
        payload, priority)
    SELECT printf('00000000-0000-7000-8000-%012x', i), queue, current_state, auto_target_state,
        submit_time + i, update_time + i, timeout, payload, priority
    FROM task, numbers
    """


def submissions(image: str, *, quick: bool) -> Figure:
    """Return the acknowledged submissions per second of 8 clients, each on disk, while no job runs."""
    with submitting(image, quick=quick) as rate:
        # The first round warms up.
        rates = [rate() for _ in range(2 if quick else 6)][1:]
    return alone(f"submissions, {_CLIENTS} clients", rates, unit="/s", mark=500, at_least=True)


@contextlib.contextmanager
def submitting(image: str, *options: str, quick: bool) -> Iterator[Callable[[], float]]:
    """Run a service, and give the body a function: 8 clients submit, and it returns the jobs per second."""
    each = 25 if quick else 150
    with serving("--concurrency", "0", *options) as service, ThreadPoolExecutor(_CLIENTS) as pool:
        connections = [service.client() for _ in range(_CLIENTS)]

        def rate() -> float:
            ready = Barrier(_CLIENTS + 1)

            def submit_all(client: Client) -> None:
                ready.wait()
                for _ in range(each):
                    client.submit(image)

            running = [pool.submit(submit_all, client) for client in connections]
            ready.wait()
            started = perf_counter()
            for future in running:
                future.result()
            return _CLIENTS * each / (perf_counter() - started)

        yield rate


def claims(*, quick: bool) -> Figure:
    """Return the claims per second of one worker from the embedded queue, among many waiting tasks."""
    waiting, each = (10_000, 300) if quick else (100_000, 1000)
    with tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-") as directory:
        path = Path(directory, "corndogs.db")
        storage = TaskStorage(path, time_ns)
        storage.open()
        corndogs = DirectCorndogs(storage)
        try:
            corndogs.submit_task(_QUEUE, payload=b"x" * 120, timeout_s=-1)
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(_MULTIPLY, (waiting - 1,))
            rates = []
            for _ in range(2 if quick else 6):
                started = perf_counter()
                for _ in range(each):
                    if corndogs.get_next_task(_QUEUE, override_timeout_s=60) is None:
                        raise RuntimeError("the queue is empty")
                rates.append(each / (perf_counter() - started))
        finally:
            corndogs.close()
            storage.close()
    return alone(f"claims, {waiting:,} waiting", rates[1:], unit="/s", mark=500, at_least=True)
