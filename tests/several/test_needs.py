"""A node with two needs that end at the same moment, each through another service: it starts once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from reactorcide.domain.jobs import Job, JobFilter, JobStatus, Outcome
from reactorcide.domain.runs import NodeState, RunStatus
from reactorcide.jobs import JobContext
from reactorcide.jobs.ending import finish
from reactorcide.lib.clock import now_ms
from reactorcide.store import Records, Store
from reactorcide.store.vault import Vault
from tests.support.postgresql import PostgreSQL
from tests.support.store import opened_again
from tests.support.waiting import wait_until
from tests.worker.conftest import House, open_house
from tests.worker.test_runs import started

TEXT = """
name: CI
on: push
jobs:
  a: {command: exit 0, checkout: false}
  b: {command: exit 0, checkout: false}
  both: {needs: [a, b], command: exit 0, checkout: false}
  whatever: {needs: [a, b], condition: always, command: exit 0, checkout: false}
"""
GOOD, BAD = Outcome(exit_code=0, error=None), Outcome(exit_code=3, error="exit code 3")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """The first service, without a worker: the test is its worker."""
    monkeypatch.setenv("REACTORCIDE_TEST_DATABASE", "postgresql")
    with open_house(tmp_path, "instance") as house:
        yield house


@pytest.fixture
def other(house: House) -> Iterator[JobContext]:
    """The second service: connections and a writers' lock of its own."""
    with closing(opened_again(house.database)) as database:
        store = Store(database, Vault.beside(house.database.path))
        store.instance.open_vault()
        yield replace(house.context, store=store)


@pytest.mark.parametrize(
    ("outcomes", "states", "run_status"),
    [
        ((GOOD, GOOD), (NodeState.ACTIVE, NodeState.ACTIVE), RunStatus.RUNNING),
        ((BAD, GOOD), (NodeState.SKIPPED_BY_FAILURE, NodeState.ACTIVE), RunStatus.RUNNING),
        ((GOOD, BAD), (NodeState.SKIPPED_BY_FAILURE, NodeState.ACTIVE), RunStatus.RUNNING),
        ((BAD, BAD), (NodeState.SKIPPED_BY_FAILURE, NodeState.ACTIVE), RunStatus.RUNNING),
    ],
)
def test_a_node_starts_once_however_its_needs_end(
    house: House,
    other: JobContext,
    outcomes: tuple[Outcome, Outcome],
    states: tuple[NodeState, NodeState],
    run_status: RunStatus,
) -> None:
    store = house.context.store
    run = started(house, TEXT)
    first, second = (claimed(house.context, node.job_id) for node in store.runs.nodes(run.run_id)[:2])
    database = house.database
    assert isinstance(database, PostgreSQL)
    with ThreadPoolExecutor(1) as pool:
        ending: list[Future[None]] = []

        def end_the_other(_: Records) -> None:
            """The second one ends while the first has locked the run, and has not written yet."""
            if not ending:
                ending.append(pool.submit(finish, other, second, outcomes[1]))
                wait_until(lambda: database.waiting_writers() == 1, 20, "the second one waits for the first")

        finish(house.context, first, outcomes[0], first=end_the_other)
        ending[0].result(20)
    nodes = {node.name: node for node in store.runs.nodes(run.run_id)}
    assert (nodes["both"].state, nodes["whatever"].state) == states
    assert store.runs.get(run.run_id).status is run_status
    jobs, _ = store.lists.page(JobFilter(), limit=100)
    # One job each, which the queue has got.
    assert sorted((job.node, job.status) for job in jobs if job.node in ("both", "whatever")) == [
        (name, JobStatus.QUEUED) for name in ("both", "whatever") if nodes[name].state is NodeState.ACTIVE
    ]


def claimed(context: JobContext, job_id: str | None) -> Job:
    assert job_id is not None
    return context.store.attempts.create(job_id, "task", "worker", now_ms=now_ms())
