"""Runs of a project that no person starts, on a real database and queue, from a real repository."""

import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reactorcide.domain.accounts import SERVICE_USER, Role
from reactorcide.domain.audit import AuditFilter
from reactorcide.domain.errors import Conflict, Forbidden, JobFailed, NotFound
from reactorcide.domain.jobs import JobFilter
from reactorcide.domain.runs import Comparison, Run, RunFilter, RunSource, RunStatus
from reactorcide.jobs import leftovers
from reactorcide.projects import change
from reactorcide.runs.cancel import cancel
from reactorcide.runs.request import Start
from reactorcide.runs.start import Skipped, start, start_for_project
from reactorcide.store import Records
from tests.sources.support import Repository
from tests.support.runs import repository
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House, run_context

CI = "name: CI\non: [push]\njobs: {a: {command: 'true', checkout: false}}\n"
FILES = {
    "workflows/ci.yaml": CI,
    "workflows/docs.yaml": CI.replace("CI", "Docs").replace("jobs:", "paths: {include: [docs/**]}\njobs:"),
    "workflows/release.yaml": CI.replace("push", "tag"),
}


class Project:
    """A project of a repository, whose runs no worker takes."""

    def __init__(self, house: House, path: Path, files: dict[str, str]) -> None:
        self.repository: Repository = repository(path / uuid.uuid4().hex, files)
        self.store = house.context.store
        self.context = run_context(house.context, house.preparation)
        created, _ = change.create(house.context, USER, "acme/site", f"file://{self.repository.path}", {})
        self.project_id = created.project_id

    def request(self, ref: str = "main", workflow: str | None = None, **event: str) -> Start:
        return Start(
            source=RunSource(git_ref=ref),
            workflow=workflow,
            event={"name": "push", "branch": "main", **event},
            changed=["src/a"],
        )

    def runs(self) -> list[Run]:
        runs, _ = self.store.runs.page(RunFilter(project_id=self.project_id), limit=100)
        return sorted(runs, key=lambda run: run.number)


@pytest.fixture
def project(house: House, tmp_path: Path) -> Project:
    return Project(house, tmp_path, FILES)


def test_each_matching_workflow_is_a_run_without_user(project: Project) -> None:
    written: list[Sequence[Run]] = []
    started = start_for_project(
        project.context, project.project_id, project.request(), lambda tx, runs: written.append(runs)
    )
    assert started == project.runs() == written[-1]
    assert [(run.workflow_id, run.status, run.number) for run in started] == [
        ("ci", RunStatus.RUNNING, 1),
        ("docs", RunStatus.SKIPPED, 2),
    ]
    assert started[1].reason == "none of the 1 changed files is one that its paths name"
    assert {run.user_id for run in started} == {SERVICE_USER.user_id}
    assert started[0].event["project"] == "acme/site"
    entries, _ = project.store.audit.page(AuditFilter(subject=started[0].run_id), limit=10)
    assert [entry.by.user_id.partition("@")[0] for _, entry in entries] == ["service"]


def test_named_workflow_runs_alone(project: Project) -> None:
    (run,) = start_for_project(
        project.context, project.project_id, project.request(workflow="release", name="tag_created")
    )
    assert (run.workflow_id, run.status) == ("release", RunStatus.RUNNING)


def test_companion_write_is_atomic_with_the_runs(project: Project) -> None:
    def fail(tx: Records, runs: Sequence[Run]) -> None:
        assert len(runs) == 2
        raise Conflict("another one was first")

    with pytest.raises(Conflict, match="another one was first"):
        start_for_project(project.context, project.project_id, project.request(), fail)
    assert project.runs() == []
    assert start_for_project(project.context, project.project_id, project.request())[0].number == 1


def test_unavailable_commit_is_one_failed_run(project: Project) -> None:
    request = project.request("gone", sha="f" * 40)
    with pytest.raises(JobFailed, match='no branch, tag or commit "gone"'):
        start_for_project(project.context, project.project_id, request)
    assert project.runs() == []
    (run,) = start_for_project(project.context, project.project_id, request, gives_up=True)
    assert (run.workflow_id, run.file, run.status, run.sha) == ("config", "", RunStatus.FAILED, "f" * 40)
    assert 'no branch, tag or commit "gone"' in (run.reason or "")
    nightly = project.request("gone", workflow="nightly", name="schedule")
    (run,) = start_for_project(project.context, project.project_id, nightly, gives_up=True)
    assert (run.workflow_id, run.event["name"]) == ("nightly", "schedule")


def test_missing_workflow_is_a_failed_run(project: Project) -> None:
    (run,) = start_for_project(project.context, project.project_id, project.request(workflow="nightly"))
    assert (run.workflow_id, run.status) == ("nightly", RunStatus.FAILED)
    assert run.reason == "there is no workflow 'nightly'; there is ci, docs, release"


def test_malformed_yaml_fails_under_its_previous_id(house: House, tmp_path: Path) -> None:
    text = CI.replace("name: CI", "name: CI\nid: main")
    project = Project(house, tmp_path, {"workflows/ci.yaml": text})
    (run,) = start_for_project(project.context, project.project_id, project.request())
    assert run.workflow_id == "main"
    project.repository.commit(".reactorcide/workflows/ci.yaml", "name: [\n")
    (run,) = start_for_project(project.context, project.project_id, project.request())
    assert (run.workflow_id, run.status) == ("main", RunStatus.FAILED)
    assert (run.reason or "").startswith(".reactorcide/workflows/ci.yaml:")
    # It fails for its own events alone once it says which these are.
    project.repository.commit(".reactorcide/workflows/ci.yaml", text.replace("command", "comand"))
    request = project.request(name="tag_created")
    assert start_for_project(project.context, project.project_id, request) == []


def test_without_workflow_files_there_is_no_run(house: House, tmp_path: Path) -> None:
    project = Project(house, tmp_path, {})
    written: list[Sequence[Run]] = []
    request = project.request()
    assert (
        start_for_project(project.context, project.project_id, request, lambda tx, runs: written.append(runs))
        == []
    )
    assert written[-1] == []


def test_disabled_or_removed_project_starts_nothing(project: Project) -> None:
    change.change(project.context.jobs, USER, project.project_id, {"disabled": True})
    with pytest.raises(Conflict, match="is disabled"):
        start_for_project(project.context, project.project_id, project.request())
    change.remove(project.context.jobs, USER, project.project_id)
    with pytest.raises(NotFound):
        start_for_project(project.context, project.project_id, project.request())


def test_job_files_run_for_the_events_of_their_triggers(house: House, tmp_path: Path) -> None:
    job = (
        "name: a\ntriggers: {events: [push]}\npaths: {include: [docs/**]}\njob: {command: 'true', image: x}\n"
    )
    project = Project(house, tmp_path, {"jobs/a.yaml": job})
    request = project.request(name="tag_created", tag="v1")
    assert start_for_project(project.context, project.project_id, request) == []
    (run,) = start_for_project(project.context, project.project_id, project.request())
    assert (run.status, run.reason) == (RunStatus.SKIPPED, "none of its jobs starts on this")


def test_changed_files_come_from_git(project: Project) -> None:
    before = project.repository.git("rev-parse", "HEAD")
    (project.repository.path / "docs").mkdir()
    project.repository.commit("docs/a.md", "1")
    request = replace(project.request(), changed=None, comparison=Comparison(sha=before))
    _, docs = start_for_project(project.context, project.project_id, request)
    assert (docs.workflow_id, docs.status) == ("docs", RunStatus.RUNNING)
    project.repository.commit("src", "1")
    request = replace(request, comparison=Comparison(sha=project.repository.git("rev-parse", "HEAD~1")))
    _, docs = start_for_project(project.context, project.project_id, request)
    assert docs.status is RunStatus.SKIPPED
    # Where git cannot tell, it runs.
    request = replace(request, comparison=Comparison(sha="f" * 40))
    _, docs = start_for_project(project.context, project.project_id, request)
    assert docs.status is RunStatus.RUNNING


@pytest.mark.parametrize("mark", ["[skip ci]", "[CI skip]"])
def test_skip_marker_in_a_commit_starts_nothing(project: Project, mark: str) -> None:
    project.repository.git("commit", "--quiet", "--allow-empty", "--message", f"Mend it\n\nfor now {mark}")
    with pytest.raises(Skipped):
        start_for_project(project.context, project.project_id, replace(project.request(), heeds_skip=True))
    assert len(start_for_project(project.context, project.project_id, project.request())) == 2


def test_an_annotated_tag_is_run_at_its_commit(project: Project) -> None:
    project.repository.git("tag", "--annotate", "--message", "first", "v1")
    tag = project.repository.git("rev-parse", "v1")
    request = project.request(tag, name="tag_created", tag="v1", branch="", sha=tag)
    (run,) = start_for_project(project.context, project.project_id, request)
    sha = project.repository.git("rev-parse", "HEAD")
    assert tag != sha
    assert (run.workflow_id, run.sha, run.event["sha"]) == ("release", sha, sha)


BUILDING = "name: CI\non: [push]\njobs: {a: {command: x, checkout: false, capabilities: [builder]}}\n"


def test_job_builds_images_if_an_admin_has_granted_it(house: House, tmp_path: Path) -> None:
    project = Project(house, tmp_path, {"workflows/ci.yaml": BUILDING})

    def built(*, project_id: str | None = project.project_id) -> str:
        """Return the address of the BuildKit that the job has, or why there is no job."""
        if project_id is None:
            source = RunSource(git_url=f"file://{project.repository.path}")
            request = Start(source=source, workflow=None, event={"name": "push"})
            run, _ = start(project.context, USER, request)
        else:
            (run,) = start_for_project(project.context, project_id, project.request())
        (node,) = project.store.runs.nodes(run.run_id)
        if node.job_id is None:
            return (node.reason or "").removeprefix("the capability builder cannot be used: ")
        return project.store.jobs.get(node.job_id).definition.job_env_vars["BUILDKIT_HOST"]

    assert built() == "the operator has named no BuildKit, with --buildkit-address"
    defaults = replace(project.context.defaults, buildkit_address="tcp://buildkit:1234")
    project.context = replace(project.context, defaults=defaults)
    assert built() == "no admin has granted it to acme/site, with 'reactorcide project change --builder'"
    with pytest.raises(Forbidden, match="only an admin may grant the builder"):
        change.change(house.context, USER, project.project_id, {"builder": True})
    change.change(house.context, replace(USER, role=Role.ADMIN), project.project_id, {"builder": True})
    assert built() == "tcp://buildkit:1234"
    assert built(project_id=None).startswith("only a project's jobs may have it")
    # Its owner may do without.
    change.change(house.context, USER, project.project_id, {"builder": False})
    assert built().startswith("no admin has granted it")


def test_numbers_skip_ahead_after_a_restore(project: Project) -> None:
    def numbers() -> list[int]:
        source = RunSource(git_url=f"file://{project.repository.path}")
        request = Start(source=source, workflow="ci", event={"name": "push"})
        run, _ = start(project.context, USER, request)
        of_project = start_for_project(project.context, project.project_id, project.request())
        return [run.number, *(run.number for run in of_project)]

    assert numbers() == [1, 1, 2]
    project.store.runs.skip_numbers()
    assert numbers() == [2001, 2001, 2002]
    # Also where nothing was started in between.
    for _ in range(2):
        project.store.runs.skip_numbers()
    assert numbers() == [6001, 6001, 6002]


def test_the_runs_of_a_project_that_was_removed_are_removed_later(project: Project) -> None:
    (run, _) = start_for_project(project.context, project.project_id, project.request())
    cancel(project.context, USER, run.run_id)
    # As if it had been killed with the project removed, or were of an older version.
    project.store.projects.remove(project.project_id)
    assert project.store.runs.get(run.run_id)
    leftovers.remove_leftovers(project.context.jobs)
    assert project.runs() == []
    assert project.store.lists.page(JobFilter(run_id=run.run_id), limit=1) == ([], 0)


def test_project_job_limit_is_enforced_and_every_run_ends(house: House, tmp_path: Path) -> None:
    jobs = "".join(f"  j{number}: {{command: exit 0, checkout: false}}\n" for number in range(8))
    last = "  last: {needs: [j0, j7], command: exit 3, checkout: false}\n"
    project = Project(house, tmp_path, {"workflows/ci.yaml": f"name: CI\non: [push]\njobs:\n{jobs}{last}"})
    change.change(house.context, USER, project.project_id, {"max_running": 2})
    for _ in range(3):
        start_for_project(project.context, project.project_id, project.request())
    house.worker(concurrency=4)
    wait_until(lambda: all(run.is_final for run in project.runs()), 60, "all runs end")
    assert {run.status for run in project.runs()} == {RunStatus.FAILED}
    assert not any(run.waits_for_room for run in project.runs())
    moments: list[tuple[int, int]] = []
    for run in project.runs():
        page, total = project.store.lists.page(JobFilter(run_id=run.run_id), limit=100)
        assert total == 9
        for job in page:
            moments += [(job.created_at_ms, 1), (job.completed_at_ms or 0, -1)]
    # One that ends makes room for the next one in the same millisecond.
    active = [sum(step for _, step in sorted(moments)[: index + 1]) for index in range(len(moments))]
    assert max(active) == 2


@pytest.mark.parametrize("program", ["reactorcide.runs.evaluation", "reactorcide.deliveries.reading"])
def test_evaluator_program_imports_few_modules(program: str) -> None:
    code = f"import sys, {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"reactorcide.store", "reactorcide.jobs", "prometheus_client"} & set(done.stdout.split())
