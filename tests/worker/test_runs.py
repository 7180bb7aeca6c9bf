"""Runs on a real database and queue and a fake engine: what a crash leaves, and what retention removes."""

from types import SimpleNamespace
from typing import Any

import pytest

from reactorcide.domain.audit import AuditFilter, operator
from reactorcide.domain.errors import EngineUnavailable, InvalidInput, NotFound
from reactorcide.domain.jobs import ACTIVE, JobFilter, JobStatus
from reactorcide.domain.runs import Commit, NodeState, Run, RunSource, RunStatus
from reactorcide.jobs import retention
from reactorcide.jobs.defaults import JobDefaults
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext, upkeep
from reactorcide.runs.evaluate import Evaluator
from reactorcide.runs.request import Start
from reactorcide.runs.start import start
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House

TEXT = """
name: CI
on: push
jobs:
  a: {command: exit 0, checkout: false}
  b: {needs: [a], command: exit 0, checkout: false}
"""


def started(house: House, text: str = TEXT, *, timeout_s: float = 60) -> Run:
    commit = Commit(files={".reactorcide/workflows/ci.yaml": text.encode()}, repository="r")
    context = RunContext(
        jobs=house.context,
        commits=SimpleNamespace(commit=lambda *_, **__: commit),
        evaluator=Evaluator(timeout_s=timeout_s),
        defaults=JobDefaults(image="alpine:latest"),
    )
    request = Start(source=RunSource(git_url="file:///x"), workflow=None, event={"name": "push"})
    run, is_new = start(context, USER, request)
    assert is_new
    return run


def over(house: House, run: Run) -> Run:
    runs = house.context.store.runs
    wait_until(lambda: runs.get(run.run_id).is_final, 20, "the run is over")
    return runs.get(run.run_id)


def test_runs_that_a_crash_interrupted_are_resolved(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    store = house.context.store
    run = started(house)
    (first, second) = store.runs.nodes(run.run_id)
    assert (first.state, second.state) == (NodeState.ACTIVE, NodeState.WAITING)
    # As if it had ended without what follows from that.
    store.jobs.transition(
        first.job_id or "", JobStatus.CANCELLED, now_ms=now_ms(), only_from=ACTIVE, completed_at_ms=now_ms()
    )
    sweep = upkeep.RunUpkeep(house.context)
    sweep.resolve_open()
    assert not store.runs.get(run.run_id).is_final
    monkeypatch.setattr(upkeep, "_UNCHANGED_MS", -1)
    sweep.resolve_open()
    ended = store.runs.get(run.run_id)
    assert (ended.status, ended.is_final) == (RunStatus.FAILED, True)
    assert [node.state for node in store.runs.nodes(run.run_id)] == [
        NodeState.CANCELLED,
        NodeState.SKIPPED_BY_FAILURE,
    ]


def test_retention_leaves_open_runs_alone_and_removes_those_without_jobs(house: House) -> None:
    store = house.context.store
    house.worker()
    done = over(house, started(house))
    failed = started(house, "name: CI\non: push\njobs: {a: {comand: x}}\n")
    open_run = started(house, TEXT.replace("a: {command: exit 0", "a: {command: print x; hang"))
    single = house.ended(house.submit())
    policy = retention.Policy(keep_jobs=1)

    def removed() -> bool:
        retention.apply(house.context, policy, by=operator())
        return store.runs.find(done.run_id) is None

    # A task is closed only after its job has ended, and up to then nothing of that is removed.
    wait_until(removed, 20, "the run and its jobs are removed")
    assert store.runs.nodes(done.run_id) == []
    assert store.jobs.get(single.job_id)
    assert not store.runs.get(open_run.run_id).is_final
    assert store.runs.nodes(open_run.run_id)[0].job_status is not None
    # It ended after all that were removed.
    assert store.runs.get(failed.run_id).reason
    entries, _ = store.audit.page(AuditFilter(subject=done.run_id), limit=10)
    assert [entry.action for _, entry in entries] == ["run.delete", "run.start"]
    with pytest.raises(NotFound):
        store.runs.get(done.run_id)


def test_retention_removes_a_run_as_a_whole_or_not_at_all(house: House) -> None:
    store = house.context.store
    house.worker()
    older, pinned, newer = (over(house, started(house)) for _ in range(3))
    store.runs.pin(pinned.run_id, True)
    # Two jobs each: of three one would be a part.
    policy = retention.Policy(keep_jobs=3)

    def removed() -> bool:
        retention.apply(house.context, policy, by=operator())
        return store.runs.find(older.run_id) is None

    wait_until(removed, 20, "the older run is removed")
    jobs, _ = store.lists.page(JobFilter(), limit=10)
    assert sorted(job.run_id or "" for job in jobs) == sorted([pinned.run_id, newer.run_id] * 2)
    # What a job is still needed for keeps its run.
    used = store.runs.nodes(newer.run_id)[0].job_id
    house.workers[0].stop(10)
    house.submit(source_job_id=used)
    assert store.retention.removable() == []
    store.runs.pin(pinned.run_id, False)
    assert [job.run_id for job in store.retention.removable()] == [pinned.run_id] * 2


def test_an_evaluation_has_a_deadline(house: House) -> None:
    with pytest.raises(InvalidInput, match=r"evaluating the workflow files took longer than 0\.01 s"):
        started(house, timeout_s=0.01)


def test_yaml_bomb_is_a_failed_run(house: House) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    run = started(house, bomb)
    assert run.status is RunStatus.FAILED
    assert "ci.yaml:" in (run.reason or "")


HANDED_ON = """
name: CI
on: push
jobs:
  a: {command: write /job/workflow-output v=1, checkout: false}
  b: {needs: [a], command: "print x; hang", checkout: false, env: {V: "${needs.a.v}"}}
"""


def test_total_outputs_of_needed_jobs_are_limited(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.jobs.needs._MAX_OUTPUTS_BYTES", 5)
    run = started(house, HANDED_ON)
    house.worker()
    over(house, run)
    store = house.context.store
    a, b = store.runs.nodes(run.run_id)
    assert (a.state, b.state) == (NodeState.COMPLETED, NodeState.FAILED)
    assert store.jobs.get(b.job_id or "").error == (
        "the jobs before it have written more than 5 B of outputs together; write less"
    )


@pytest.mark.parametrize("failures", [2, 5])
def test_outputs_are_read_again_after_an_engine_outage(
    house: House, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    errors = [EngineUnavailable("the engine is away")] * failures

    def read_file(*arguments: Any) -> bytes | None:
        if errors:
            raise errors.pop()
        return read(*arguments)

    read = house.runner.read_file
    monkeypatch.setattr(house.runner, "read_file", read_file)
    monkeypatch.setattr("reactorcide.worker.attempt.patience._RETRY_S", 0.01)
    run = started(house, HANDED_ON)
    house.worker()
    store = house.context.store
    if failures == 2:
        wait_until(lambda: any(spec.env.get("V") == "1" for spec in house.runner.started), 20, "b has it")
        return
    over(house, run)
    a, b = store.runs.nodes(run.run_id)
    assert store.jobs.get(a.job_id or "").error == "the engine is away"
    assert b.state is NodeState.SKIPPED_BY_FAILURE
