"""What becomes of nodes when others end."""

import pytest

from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.runs import NodeState, RunStatus
from reactorcide.workflows.graph import Graph
from reactorcide.workflows.resolve import (
    Change,
    cancel,
    has_failed,
    resolve,
    run_status,
)
from tests.workflows.support import PUSH, define

C, F, X = NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED
S, SF, A, W = NodeState.SKIPPED, NodeState.SKIPPED_BY_FAILURE, NodeState.ACTIVE, NodeState.WAITING


def graph(**jobs: str) -> Graph:
    """Return the graph of jobs, each with its keys in flow style."""
    text = "".join(f"  {name}: {{command: x, {keys}}}\n" for name, keys in jobs.items())
    return define(f"name: CI\non: push\njobs:\n{text}").expand(PUSH)


@pytest.mark.parametrize(
    ("condition", "a", "b", "expected"),
    [
        ("all_success", C, C, "ready"),
        ("all_success", C, A, None),
        ("all_success", C, W, None),
        ("all_success", F, A, None),
        ("all_success", F, C, SF),
        ("all_success", X, C, SF),
        ("all_success", SF, C, SF),
        ("all_success", S, C, S),
        ("all_success", S, F, SF),
        ("no_failure", S, C, "ready"),
        ("no_failure", S, S, "ready"),
        ("no_failure", S, F, SF),
        ("no_failure", SF, C, SF),
        ("any_failed", C, C, S),
        ("any_failed", S, C, S),
        ("any_failed", F, A, None),
        ("any_failed", F, C, "ready"),
        ("any_failed", X, S, "ready"),
        ("any_failed", SF, C, "ready"),
        ("always", C, F, "ready"),
        ("always", S, SF, "ready"),
        ("always", X, A, None),
    ],
)
def test_conditions_decide_whether_a_job_runs(
    condition: str, a: NodeState, b: NodeState, expected: NodeState | str | None
) -> None:
    needing = graph(a="", b="", c=f"needs: [a, b], condition: {condition}")

    step = resolve(needing, {"a": a, "b": b, "c": W})

    # Where a or b wait themselves they are ready: they need nothing.
    ready = "c" in step.ready
    state = step.changes["c"].state if "c" in step.changes else None
    assert ("ready" if ready else state) == expected


def test_allowed_failure_does_not_fail_dependents() -> None:
    allowed = graph(a="allow_failure: true", b="needs: a", c="needs: a, condition: any_failed")

    for state in (F, X):
        step = resolve(allowed, {"a": state})
        assert step.ready == ("b",)
        assert step.changes["c"].state is S
        assert run_status(allowed, {"a": state, "b": C, "c": S}) is RunStatus.COMPLETED


def test_skip_is_propagated_at_once() -> None:
    chain = graph(
        a="", b="needs: a", c="needs: b", d="needs: c, condition: always", e="needs: c, condition: any_failed"
    )

    step = resolve(chain, {"a": F})

    assert step.changes == {"b": Change(SF, "a did not succeed"), "c": Change(SF, "b did not succeed")}
    assert step.ready == ("d", "e")


def test_job_for_another_event_is_skipped_before_it_waits() -> None:
    filtered = graph(a="", b="needs: a, on: {branches: dev}", c="needs: b")

    step = resolve(filtered, {"a": A})

    assert step.ready == ()
    assert step.changes == {
        "b": Change(S, "the branch main matches none of dev"),
        "c": Change(S, "b was skipped"),
    }


def test_need_waits_for_every_combination() -> None:
    wide = graph(a="matrix: {n: [1, 2]}", b="needs: a")

    assert resolve(wide, {}).ready == ("a (1)", "a (2)")
    assert resolve(wide, {"a (1)": C, "a (2)": A}) == resolve(wide, {"a (1)": F, "a (2)": A})
    assert resolve(wide, {"a (1)": C, "a (2)": C}).ready == ("b",)
    assert resolve(wide, {"a (1)": F, "a (2)": C}).changes == {"b": Change(SF, "a (1) did not succeed")}


def test_max_parallel_bounds_the_combinations_that_run() -> None:
    wide = graph(a="matrix: {n: [1, 2, 3], max_parallel: 2}")

    assert resolve(wide, {}).ready == ("a (1)", "a (2)")
    assert resolve(wide, {"a (1)": A, "a (2)": A}).ready == ()
    assert resolve(wide, {"a (1)": F, "a (2)": A}).ready == ("a (3)",)


def test_run_status_is_derived_from_its_nodes() -> None:
    two = graph(a="", b="")

    assert run_status(two, {}) is RunStatus.RUNNING
    assert run_status(two, {"a": F, "b": A}) is RunStatus.RUNNING
    assert has_failed(two, {"a": F, "b": A})
    assert not has_failed(two, {"a": C, "b": A})
    assert run_status(two, {"a": F, "b": C}) is RunStatus.FAILED
    assert run_status(two, {"a": C, "b": X}) is RunStatus.FAILED
    assert run_status(two, {"a": C, "b": S}) is RunStatus.COMPLETED
    assert run_status(two, {"a": S, "b": S}) is RunStatus.SKIPPED
    assert run_status(two, {"a": X, "b": X}, is_cancelled=True) is RunStatus.CANCELLED


def test_cancel_of_a_run_cancels_all_waiting_nodes() -> None:
    assert cancel(graph(a="", b="needs: a, condition: always", c=""), {"a": A, "c": C}) == ("b",)


def test_node_state_equals_that_of_its_job() -> None:
    states = {status: NodeState.of_job(status) for status in JobStatus}

    assert {status for status, state in states.items() if state is A} == {
        JobStatus.SUBMITTED,
        JobStatus.QUEUED,
        JobStatus.RUNNING,
        JobStatus.SUBMIT_FAILED,
    }
    assert states[JobStatus.FAILED] is F
