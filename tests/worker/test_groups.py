"""Concurrency groups on a real database and queue: who gets the place of a group, and who says what."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from peewee import IntegrityError

from reactorcide.domain.accounts import Role, User
from reactorcide.domain.jobs import JobStatus, Outcome
from reactorcide.domain.runs import Commit, Node, NodeState, Run, RunSource, RunStatus
from reactorcide.jobs import cancel, ending, lifecycle
from reactorcide.runs import read, upkeep
from reactorcide.runs.cancel import cancel as cancel_run
from reactorcide.runs.request import Start
from reactorcide.runs.rerun import rerun
from reactorcide.runs.start import start
from tests.worker.conftest import USER, House, run_context

OTHER = User(user_id="o", username="o", email=None, role=Role.USER, is_active=True, created_at_ms=0)


class Runs:
    """Runs of one workflow after the other; no worker takes their jobs, so that the test ends them."""

    def __init__(self, house: House) -> None:
        self.files: dict[str, bytes] = {}
        self.store = house.context.store
        self.context = run_context(
            house.context, SimpleNamespace(commit=lambda *_, **__: Commit(files=self.files, repository="r"))
        )

    def start(self, jobs: str, group: str = "", *, user: User = USER) -> Run:
        """Start a run of jobs, as ``name: {keys}`` in lines, in a group."""
        text = f"name: CI\non: manual\n{group and f'concurrency: {{{group}}}'}\njobs:\n"
        lines = "".join(
            f"  {line.replace('{', '{command: x, checkout: false, ', 1)}\n" for line in jobs.split("\n")
        )
        self.files = {".reactorcide/workflows/ci.yaml": (text + lines).encode()}
        request = Start(source=RunSource(git_url="file:///x"), workflow=None, event={"name": "manual"})
        run, _ = start(self.context, user, request)
        assert run.reason is None or ".yaml" not in run.reason, run.reason
        return run

    def now(self, *runs: Run) -> list[tuple[RunStatus, str | None]]:
        """Return the status and the reason of each run as a client sees them."""
        views = [read.view(self.context, USER, run.run_id).run for run in runs]
        return [(run.status, run.reason) for run in views]

    def node(self, run: Run, name: str) -> Node:
        (node,) = (item for item in self.store.runs.nodes(run.run_id) if item.name == name)
        return node

    def states(self, run: Run) -> dict[str, NodeState]:
        return {node.name: node.state for node in self.store.runs.nodes(run.run_id)}

    def waits(self, run: Run) -> dict[str, str]:
        return dict(read.view(self.context, USER, run.run_id).waits)

    def end(self, run: Run, name: str, exit_code: int = 0) -> None:
        """End the job of a node."""
        job = self.store.jobs.get(self.node(run, name).job_id or "")
        task = job.corndogs_task_id or ""
        job = lifecycle.claim(self.context.jobs, job.job_id, task, "w")
        error = None if exit_code == 0 else f"exit code {exit_code}"
        ending.finish(self.context.jobs, job, Outcome(exit_code=exit_code, error=error))


@pytest.fixture
def runs(house: House) -> Runs:
    return Runs(house)


RUNNING, WAITING, CANCELLED = RunStatus.RUNNING, RunStatus.WAITING, RunStatus.CANCELLED
COMPLETED = RunStatus.COMPLETED


def test_runs_of_a_group_are_serialized(runs: Runs) -> None:
    first, second, third = (runs.start("a: {}", "group: ci") for _ in range(3))
    other = runs.start("a: {}", "group: other")
    assert runs.now(first, second, other) == [
        (RUNNING, None),
        (WAITING, "it waits for the concurrency group ci, held by #1"),
        (RUNNING, None),
    ]
    assert runs.waits(second) == {"a": "its run has not started"}
    assert runs.states(second) == {"a": NodeState.WAITING}
    runs.end(first, "a", exit_code=1)
    assert runs.now(first, second, third) == [
        (RunStatus.FAILED, None),
        (RUNNING, None),
        (WAITING, "it waits for the concurrency group ci, held by #2"),
    ]
    # A repeat comes last.
    rerun(runs.context, USER, first.run_id, "failed")
    cancel_run(runs.context, USER, second.run_id)
    assert runs.now(first, second, third) == [
        (WAITING, "it waits for the concurrency group ci, held by #3"),
        (CANCELLED, "cancelled"),
        (RUNNING, None),
    ]
    cancel.cancel(runs.context.jobs, USER, runs.node(third, "a").job_id or "")
    assert runs.now(first) == [(RUNNING, None)]
    runs.end(first, "a")
    assert runs.now(first) == [(COMPLETED, None)]


def test_a_run_that_waits_can_be_cancelled(runs: Runs) -> None:
    first, second, third = (runs.start("a: {}", "group: ci") for _ in range(3))
    cancel_run(runs.context, USER, second.run_id)
    runs.end(first, "a")
    assert runs.now(second, third) == [(CANCELLED, "cancelled"), (RUNNING, None)]
    assert runs.node(second, "a").jobs == 0


def test_a_newer_run_replaces_all_older_ones(runs: Runs) -> None:
    first, second = (runs.start("a: {}\nb: {needs: [a], condition: always}", "group: ci") for _ in range(2))
    third = runs.start("a: {}", "group: ci, when_full: replace")
    assert runs.now(first, second, third) == [
        (CANCELLED, "superseded by #3"),
        (CANCELLED, "superseded by #3"),
        (RUNNING, None),
    ]
    assert set(runs.states(first).values()) == {NodeState.CANCELLED}
    job = runs.store.jobs.get(runs.node(first, "a").job_id or "")
    assert (job.status, job.error) == (JobStatus.CANCELLED, "superseded by #3")
    # Its task is closed, as that of any job that is cancelled while it waits.
    assert not runs.store.tasks.to_close()
    assert runs.node(second, "a").jobs == 0


def test_newer_run_ends_if_the_group_is_in_use(runs: Runs) -> None:
    first = runs.start("a: {}", "group: ci")
    second = runs.start("a: {}", "group: ci, when_full: cancel")
    assert runs.now(second) == [(CANCELLED, "the concurrency group ci is held by #1")]
    assert runs.node(second, "a").jobs == 0
    runs.end(first, "a")
    rerun(runs.context, USER, second.run_id, "all")
    assert runs.now(second) == [(RUNNING, None)]


def test_run_that_starts_nothing_replaces_none(runs: Runs) -> None:
    first = runs.start("a: {}", "group: ci")
    runs.files = {".reactorcide/workflows/ci.yaml": b"name: CI\non: push\nconcurrency: {group: ci}\njobs: {}"}
    request = Start(source=RunSource(git_url="file:///x"), workflow=None, event={"name": "manual"})
    failed, _ = start(runs.context, USER, request)
    assert failed.status is RunStatus.FAILED
    assert runs.now(first) == [(RUNNING, None)]


def test_groups_are_per_user_and_separate_for_runs_and_jobs(runs: Runs) -> None:
    started = [
        runs.start("a: {}", "group: ci"),
        runs.start("a: {}", "group: ci", user=OTHER),
        runs.start("a: {concurrency: {group: ci}}"),
    ]
    statuses = [runs.store.runs.get(run.run_id).status for run in started]
    assert statuses == [RUNNING] * 3
    assert [runs.states(run) for run in started] == [{"a": NodeState.ACTIVE}] * 3


DEPLOY = "deploy: {{needs: [a], concurrency: {{group: prod, when_full: {}}}}}"


def deploys(runs: Runs, *rules: str) -> list[Run]:
    """Start runs whose last job is in one group."""
    return [runs.start("a: {}\n" + DEPLOY.format(rule)) for rule in rules]


def test_a_job_has_its_group_only_while_it_is_active(runs: Runs) -> None:
    first, second, third = deploys(runs, "queue", "queue", "queue")
    for run in (first, third, second):
        runs.end(run, "a")
    assert runs.states(first)["deploy"] is NodeState.ACTIVE
    assert runs.waits(second) == {
        "deploy": "it waits for the concurrency group prod, held by deploy of #1",
    }
    assert runs.now(second) == [(RUNNING, None)]
    runs.end(first, "deploy")
    # In the order of the runs, not of their jobs before.
    assert runs.states(second)["deploy"] is NodeState.ACTIVE
    assert runs.states(third)["deploy"] is NodeState.WAITING
    cancel_run(runs.context, USER, second.run_id)
    assert runs.states(third)["deploy"] is NodeState.ACTIVE


def test_older_job_that_is_not_ready_does_not_block(runs: Runs) -> None:
    first, second = deploys(runs, "queue", "queue")
    runs.end(second, "a")
    assert runs.states(second)["deploy"] is NodeState.ACTIVE
    runs.end(first, "a")
    assert runs.waits(first) == {"deploy": "it waits for the concurrency group prod, held by deploy of #2"}


def test_a_job_replaces_those_of_older_runs(runs: Runs) -> None:
    first, second, third = deploys(runs, "queue", "queue", "replace")
    for run in (first, second, third):
        runs.end(run, "a")
    assert runs.states(third)["deploy"] is NodeState.ACTIVE
    for run in (first, second):
        node = runs.node(run, "deploy")
        assert (node.state, node.reason) == (NodeState.CANCELLED, "superseded by #3")
    assert runs.store.jobs.get(runs.node(first, "deploy").job_id or "").error == "superseded by #3"
    # Their runs have ended with that.
    assert [status for status, _ in runs.now(first, second)] == [RunStatus.FAILED] * 2


def test_late_job_is_replaced_by_the_newer_one(runs: Runs) -> None:
    first, second = deploys(runs, "replace", "replace")
    runs.end(second, "a")
    runs.end(first, "a")
    assert runs.node(first, "deploy").reason == "superseded by #2"
    assert runs.states(second)["deploy"] is NodeState.ACTIVE


def test_job_ends_if_its_group_is_in_use(runs: Runs) -> None:
    first, second = deploys(runs, "queue", "cancel")
    for run in (first, second):
        runs.end(run, "a")
    node = runs.node(second, "deploy")
    assert node.state is NodeState.CANCELLED
    assert node.reason == "the concurrency group prod is held by deploy of #1"


def test_the_jobs_of_one_run_wait_for_each_other(runs: Runs) -> None:
    group = "concurrency: {group: prod, when_full: replace}"
    run = runs.start(f"a: {{matrix: {{n: [1, 2]}}, {group}}}")
    assert runs.states(run) == {"a (1)": NodeState.ACTIVE, "a (2)": NodeState.WAITING}
    assert runs.waits(run) == {"a (2)": "it waits for the concurrency group prod, held by a (1)"}
    runs.end(run, "a (1)")
    assert runs.states(run)["a (2)"] is NodeState.ACTIVE


def test_held_job_takes_no_slot_of_its_matrix(runs: Runs) -> None:
    first = runs.start("a: {concurrency: {group: eu}}")
    group = 'concurrency: {group: "${matrix.at}"}'
    second = runs.start(f"a: {{matrix: {{at: [eu, us], max_parallel: 1}}, {group}}}")
    assert runs.states(second) == {"a (eu)": NodeState.WAITING, "a (us)": NodeState.ACTIVE}
    runs.end(first, "a")
    assert runs.waits(second) == {"a (eu)": "no more than 1 of its matrix run at once"}
    runs.end(second, "a (us)")
    assert runs.states(second)["a (eu)"] is NodeState.ACTIVE


def test_sweep_starts_runs_left_waiting_by_a_crash(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (runs.start("a: {}", "group: ci") for _ in range(2))
    # As if it had ended without what follows from that.
    with runs.store.transaction() as tx:
        run = tx.runs.get(first.run_id)
        tx.runs.save(run, replace(run, status=CANCELLED, completed_at_ms=1))
    monkeypatch.setattr(upkeep, "_UNCHANGED_MS", -1)
    upkeep.RunUpkeep(runs.context.jobs).resolve_open()
    assert runs.now(second) == [(RUNNING, None)]


def test_database_allows_one_active_member_per_group(runs: Runs) -> None:
    _, second = (runs.start("a: {}", "group: ci") for _ in range(2))
    run = runs.store.runs.get(second.run_id)
    with pytest.raises(IntegrityError):
        runs.store.runs.save(run, replace(run, status=RUNNING))
