"""The commit statuses that runs owe their forge: on a real database and queue, with a fake engine."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reactorcide import backup
from reactorcide.domain.errors import Conflict, JobFailed
from reactorcide.domain.runs import Commit, Run, RunSource
from reactorcide.domain.statuses import StatusRecord
from reactorcide.jobs import cancel as cancel_job
from reactorcide.projects import change
from reactorcide.runs import approve, cancel, rerun
from reactorcide.runs.request import Start
from reactorcide.runs.start import start, start_for_project
from reactorcide.store import Records
from reactorcide.store.outbox import STATUSES, Lane
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House, run_context

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "token of the forge"


class Project:
    """A project at a forge, whose workflow files are those that a test gives."""

    def __init__(self, house: House, *, token: str | None = TOKEN) -> None:
        self.house = house
        self.store = house.context.store
        project, _ = change.create(
            house.context,
            USER,
            f"acme/{uuid.uuid4().hex}",
            "https://forge.example/acme/site.git",
            {"forge": "gitea"},
            token=token,
        )
        self.project_id = project.project_id
        self.files: dict[str, bytes] = {}
        self.context = run_context(house.context, SimpleNamespace(commit=self._commit))

    def _commit(self, *_: object, **__: object) -> Commit:
        return Commit(files=self.files, repository="site", sha=SHA, branch="main")

    def push(self, text: str, *, name: str = "push", is_fork: bool = False, **options: Any) -> Run:
        """Start the run of a workflow for an event at the forge."""
        self.files = {".reactorcide/workflows/ci.yaml": text.encode()}
        event = {"name": name, "branch": "main", "base_branch": "main", "sha": SHA}
        request = Start(source=RunSource(git_ref="main"), workflow=None, event=event, is_fork=is_fork)
        (run,) = start_for_project(self.context, self.project_id, request, **options)
        return run

    def statuses(self) -> list[StatusRecord]:
        return self.store.outbox.statuses(self.project_id, limit=100)

    def status(self) -> tuple[str, str]:
        (status,) = self.statuses()
        assert status.owed_since_ms is not None
        return status.state, status.description

    def wait_for(self, state: str, description: str) -> None:
        expected = (state, description)
        wait_until(lambda: self.status() == expected, 20, f"{expected}, not {self.status()}")

    def over(self, run: Run) -> Run:
        wait_until(lambda: self.store.runs.get(run.run_id).is_final, 20, "the run is over")
        return self.store.runs.get(run.run_id)


@pytest.fixture
def project(house: House) -> Project:
    return Project(house)


def workflow(**jobs: str) -> str:
    lines = "".join(f"  {name}: {{checkout: false, {text}}}\n" for name, text in jobs.items())
    return f"name: CI\non: [push, tag, pull_request]\njobs:\n{lines}"


def test_run_is_pending_then_has_its_result(project: Project) -> None:
    run = project.push(workflow(a="command: exit 0", b="command: exit 0"))
    (status,) = project.statuses()
    assert (status.sha, status.context, status.run_id) == (SHA, "reactorcide/push/ci", run.run_id)
    assert project.status() == ("pending", "running")
    project.house.worker()
    project.wait_for("success", "2 jobs completed")


def test_failed_job_is_a_failure_while_others_run(project: Project) -> None:
    run = project.push(
        workflow(
            lint="command: exit 1",
            test="command: print x; hang",
            publish="command: exit 0, needs: [test]",
        )
    )
    project.house.worker()
    project.wait_for("failure", "1 of 3 jobs failed: lint; others still run")
    (node,) = (item for item in project.store.runs.nodes(run.run_id) if item.name == "test")
    job = project.store.jobs.get(node.job_id or "")
    project.house.until(job, lambda job: job.started_at_ms is not None, "the job runs")
    cancel_job.cancel(project.house.context, USER, job.job_id)
    project.wait_for("failure", "2 of 3 jobs failed: lint, test")
    assert project.over(run).status == "failed"


def test_statuses_of_many_failures_are_limited(project: Project) -> None:
    """A forge takes only so many of a commit."""
    matrix = "command: exit 1, matrix: {n: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"
    run = project.push(workflow(a=matrix, slow="command: print x; hang"))
    project.house.worker(concurrency=4)
    project.wait_for("failure", "more than 3 jobs failed; others still run")

    def failed() -> int:
        return sum(node.has_failed for node in project.store.runs.nodes(run.run_id))

    wait_until(lambda: failed() == 9, 20, "all have failed")
    # Pending, one for each of the first three, and one for all others.
    assert project.statuses()[0].version <= 5


def test_the_status_mentions_allowed_failures(project: Project) -> None:
    project.push(workflow(a="command: exit 0", flaky="command: exit 1, allow_failure: true"))
    project.house.worker()
    project.wait_for("success", "1 job completed; allowed to fail: flaky")


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("push", "reactorcide/push/ci"),
        ("tag_created", "reactorcide/tag/ci"),
        ("pull_request_opened", "reactorcide/pr/ci"),
        ("pull_request_updated", "reactorcide/pr/ci"),
    ],
)
def test_each_kind_of_event_has_a_context(project: Project, name: str, context: str) -> None:
    project.push(workflow(a="command: exit 0"), name=name)
    assert [status.context for status in project.statuses()] == [context]


def test_a_schedule_sets_no_status(project: Project) -> None:
    project.push(workflow(a="command: exit 0").replace("on: [push", "on: [schedule, push"), name="schedule")
    assert project.statuses() == []


def test_manual_run_sets_no_status(project: Project) -> None:
    """Its jobs can be chosen, so that it would say less than it seems to."""
    project.files = {
        ".reactorcide/workflows/ci.yaml": workflow(a="command: exit 1", b="command: exit 0").encode()
    }
    request = Start(
        source=RunSource(git_ref="main"),
        project=project.project_id,
        workflow="ci",
        event={"name": "push"},
        jobs=["a"],
    )
    run, _ = start(project.context, USER, request)
    project.house.worker()
    project.over(run)
    project.over(rerun.rerun(project.context, USER, run.run_id, "all"))
    assert project.statuses() == []


def test_a_project_without_a_token_owes_nothing(house: House) -> None:
    project = Project(house, token=None)
    project.push(workflow(a="command: exit 0"))
    assert project.statuses() == []


def test_workflow_without_jobs_to_run_is_a_success(project: Project) -> None:
    project.push(workflow(a="command: exit 0, on: {branches: [release]}"))
    state, description = project.status()
    assert state == "success"
    assert description.startswith("nothing to do")


def test_a_wrong_file_is_an_error(project: Project) -> None:
    project.push(workflow(a="comand: x"))
    state, description = project.status()
    assert state == "error"
    assert ".reactorcide/workflows/ci.yaml" in description
    assert "\n" not in description


def test_unavailable_commit_is_a_separate_error(project: Project) -> None:
    def no_commit(*_: object, **__: object) -> Commit:
        raise JobFailed("git: there is no commit like this")

    project.context = replace(project.context, commits=SimpleNamespace(commit=no_commit))
    project.push("", gives_up=True)
    (status,) = project.statuses()
    assert (status.sha, status.context) == (SHA, "reactorcide/config")
    assert project.status() == ("error", "git: there is no commit like this")


def test_a_cancelled_run_is_an_error(project: Project) -> None:
    run = project.push(workflow(a="command: exit 0"))
    cancel.cancel(project.context, USER, run.run_id)
    assert project.status() == ("error", "cancelled")


def test_held_run_is_pending_with_the_reason(project: Project) -> None:
    text = workflow(a="command: exit 0") + "concurrency: {group: deploy, when_full: queue}\n"
    first = project.push(text, name="tag_created")
    project.push(text)
    by_context = {status.context: status for status in project.statuses()}
    held = by_context["reactorcide/push/ci"]
    assert (held.state, held.description) == ("pending", "it waits for the concurrency group deploy")
    cancel.cancel(project.context, USER, first.run_id)
    by_context = {status.context: status for status in project.statuses()}
    assert by_context["reactorcide/push/ci"].description == "running"


def test_run_waiting_for_approval_is_reported(project: Project) -> None:
    run = project.push(workflow(a="command: exit 0"), name="pull_request_opened", is_fork=True)
    assert project.status() == ("pending", "waiting for approval")
    approve.approve(project.context, USER, run.run_id)
    assert project.status() == ("pending", "running")
    project.house.worker()
    project.wait_for("success", "1 job completed")


def test_a_superseded_run_does_not_hide_the_newer_one(project: Project) -> None:
    text = workflow(a="command: exit 0") + "concurrency: {group: ci, when_full: replace}\n"
    older = project.push(text)
    newer = project.push(text)
    assert project.store.runs.get(older.run_id).reason == f"superseded by #{newer.number}"
    (status,) = project.statuses()
    assert (status.run_id, status.state) == (newer.run_id, "pending")
    project.house.worker()
    project.wait_for("success", "1 job completed")


def test_a_superseded_run_of_another_context_is_an_error(project: Project) -> None:
    text = workflow(a="command: exit 0") + "concurrency: {group: ci, when_full: replace}\n"
    project.push(text, name="tag_created")
    newer = project.push(text)
    by_context = {status.context: status for status in project.statuses()}
    older = by_context["reactorcide/tag/ci"]
    assert (older.state, older.description) == ("error", f"superseded by #{newer.number}")


def test_the_newest_run_of_a_commit_decides(project: Project) -> None:
    """Whichever ends last."""
    text = workflow(a="command: exit 0")
    older, newer = project.push(text), project.push(text)
    cancel.cancel(project.context, USER, newer.run_id)
    assert project.status() == ("error", "cancelled")
    project.house.worker()
    assert project.over(older).status == "completed"
    assert project.status() == ("error", "cancelled")


def test_rerun_is_pending_again(project: Project) -> None:
    project.house.worker()
    run = project.push(workflow(a="command: exit 1"))
    project.wait_for("failure", "1 of 1 job failed: a")
    project.over(run)
    version = project.statuses()[0].version
    rerun.rerun(project.context, USER, run.run_id, "failed")
    project.wait_for("failure", "1 of 1 job failed: a")
    assert project.statuses()[0].version == version + 2


def test_uncommitted_run_owes_no_status(project: Project) -> None:
    def refuse(tx: Records, runs: Sequence[Run]) -> None:
        raise Conflict("the delivery was processed already")

    with pytest.raises(Conflict):
        start_for_project(
            project.context,
            project.project_id,
            Start(source=RunSource(git_ref="main"), workflow=None, event={"name": "push"}),
            refuse,
        )
    assert project.statuses() == []


def test_unchanged_status_is_not_owed_again(project: Project) -> None:
    project.push(workflow(a="command: exit 0", b="command: exit 0, needs: [a]"))
    project.house.worker()
    project.wait_for("success", "2 jobs completed")
    # Pending and success, although a job has ended in between.
    assert project.statuses()[0].version == 2


def test_a_project_that_is_removed_leaves_no_status_pending(project: Project) -> None:
    run = project.push(workflow(a="command: exit 0"))
    cancel.cancel(project.context, USER, run.run_id)
    change.remove(project.house.context, USER, project.project_id)
    assert project.status() == ("error", "the project was deleted")
    lane = Lane(STATUSES, project.project_id)
    assert TOKEN in (project.store.outbox.destination(lane) or "")


def test_owed_statuses_of_a_backup_are_not_sent_after_a_restore(project: Project, tmp_path: Path) -> None:
    project.push(workflow(a="command: exit 0"))
    backup._resume(tmp_path / "jobs.db", "restored from a backup")
    (status,) = project.statuses()
    assert (status.owed_since_ms, status.problem) == (None, "restored from a backup")


def test_owed_statuses_of_a_backup_are_sent_if_its_runs_resume(project: Project, tmp_path: Path) -> None:
    project.push(workflow(a="command: exit 0"))
    backup._resume(tmp_path / "jobs.db", None)
    assert project.status() == ("pending", "running")
