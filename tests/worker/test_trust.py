"""Untrusted code: approval, and what it never gets, with a real repository."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactorcide.domain.accounts import SERVICE_USER, Role, User
from reactorcide.domain.caches import ExpectedCache
from reactorcide.domain.errors import Conflict, Forbidden, InvalidInput, JobFailed
from reactorcide.domain.named_secrets import SecretRules
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Node, NodeState, Run, RunSource, RunStatus
from reactorcide.jobs import caches
from reactorcide.projects import change
from reactorcide.runs import approve as approvals
from reactorcide.runs import read, upkeep
from reactorcide.runs.approve import approve
from reactorcide.runs.cancel import cancel
from reactorcide.runs.request import Start
from reactorcide.runs.rerun import rerun
from reactorcide.runs.start import start, start_for_project
from reactorcide.secrets import change as secrets
from tests.worker.conftest import USER, House
from tests.worker.test_project_runs import Project

ADMIN = User(user_id="a", username="a", email=None, role=Role.ADMIN, is_active=True, created_at_ms=0)
VALUE = "open sesame"
BASE = """
name: CI
on: [push, pull_request]
concurrency: {group: ci}
jobs:
  test: {command: make test, queue: gpu, checkout: false, cache: {key: k, paths: kept}}
  use: {command: ./publish, checkout: false, environment: {TOKEN: "${secret:pypi:token}"}}
"""
EVIL = BASE.replace("make test", "evil").replace("needs", "").replace("use:", "evil:")


class Forked(Project):
    """A project with a secret, and a pull request of a fork that takes all it can."""

    def __init__(self, house: House, path: Path) -> None:
        super().__init__(house, path, {"workflows/ci.yaml": BASE})
        self.base_sha = self.repository.git("rev-parse", "main").strip()
        # A forge has the commits of forks in the same repository, and no branch leads to them.
        self.repository.git("checkout", "-q", "--detach")
        self.repository.commit(".reactorcide/workflows/more.yaml", BASE.replace("CI", "More"))
        self.repository.git("update-ref", "refs/pull/1/head", "HEAD")
        self.head_sha = self.push("1")
        self.repository.git("checkout", "-q", "main")
        rules = SecretRules(events=("push", "manual", "pull_request_opened"))
        secrets.set_secret(house.context, USER, self.project_id, "pypi:token", VALUE, rules)

    def push(self, mark: str) -> str:
        """Push a commit to the pull request and return it."""
        self.repository.git("checkout", "-q", "--detach", "refs/pull/1/head")
        sha = self.repository.commit(".reactorcide/workflows/ci.yaml", f"# {mark}\n{EVIL}")
        self.repository.git("update-ref", "refs/pull/1/head", sha)
        self.repository.git("checkout", "-q", "main")
        return sha

    def opened(self, sha: str | None = None, **fields: Any) -> Run:
        """Return the run of the pull request, whose branch is called as one of the project's."""
        sha = sha or self.head_sha
        event = {
            "name": "pull_request_opened",
            "branch": "main",
            "base_branch": "main",
            "base_sha": self.base_sha,
            "number": "1",
        }
        request = Start(
            source=RunSource(git_ref=sha),
            workflow=None,
            event=event | {"sha": sha} | fields.pop("event", {}),
            is_fork=True,
            **fields,
        )
        (run,) = start_for_project(self.context, self.project_id, request)
        return run

    def by_hand(self, ref: str, **event: str) -> Run:
        request = Start(
            source=RunSource(git_ref=ref), project="acme/site", workflow="ci", event={"name": "push", **event}
        )
        return start(self.context, USER, request)[0]

    def node(self, run: Run, name: str) -> Node:
        (node,) = (item for item in self.store.runs.nodes(run.run_id) if item.name == name)
        return node

    def variables(self, run: Run) -> dict[str, str]:
        """Return the variables of the service that the job of ``test`` has, without their prefix."""
        definition = self.store.jobs.get(self.node(run, "test").job_id or "").definition
        prefix = "REACTORCIDE_"
        return {
            name.removeprefix(prefix): value
            for name, value in definition.job_env_vars.items()
            if name.startswith(prefix)
        }

    def now(self, run: Run) -> tuple[RunStatus, bool, str | None]:
        run = read.view(self.context, USER, run.run_id).run
        return run.status, run.is_held, run.reason

    def set(self, **fields: Any) -> None:
        change.change(self.context.jobs, USER, self.project_id, fields)


@pytest.fixture
def forked(house: House, tmp_path: Path) -> Forked:
    return Forked(house, tmp_path)


HELD = (RunStatus.WAITING, True, "it waits for approval")
RUNS = (RunStatus.RUNNING, False, None)
REFUSED = "secret pypi:token may not be used for a pull request of a fork"


class TestApproval:
    """A fork's pull request waits until a member has looked at it."""

    def test_run_of_a_fork_waits_for_approval(self, forked: Forked) -> None:
        run = forked.opened()
        assert forked.now(run) == HELD
        assert {node.state for node in forked.store.runs.nodes(run.run_id)} == {NodeState.WAITING}
        upkeep_of(forked).resolve_open()
        assert forked.now(run) == HELD
        approve(forked.context, USER, run.run_id)
        assert forked.now(run) == RUNS
        assert forked.node(run, "test").state is NodeState.ACTIVE
        # Again is fine.
        assert approve(forked.context, USER, run.run_id).status is RunStatus.RUNNING

    def test_approval_covers_all_runs_of_that_commit_only(self, forked: Forked) -> None:
        first, again = forked.opened(), forked.opened(event={"number": "2"})
        newer = forked.opened(forked.push("2"))
        approve(forked.context, USER, first.run_id)
        assert [forked.now(run) for run in (first, again, newer)] == [RUNS, RUNS, HELD]
        assert forked.now(forked.opened(event={"number": "3"})) == RUNS

    def test_waiting_for_approval_ends_after_14_days(
        self, forked: Forked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = forked.opened()
        approve(forked.context, USER, run.run_id)
        cancel(forked.context, USER, run.run_id)
        assert rerun(forked.context, USER, run.run_id, "all").status is RunStatus.RUNNING
        cancel(forked.context, USER, run.run_id)
        monkeypatch.setattr(approvals, "VALID_MS", 0)
        assert rerun(forked.context, USER, run.run_id, "all").is_held
        assert forked.now(forked.opened(event={"number": "2"})) == HELD
        approve(forked.context, USER, run.run_id)
        assert forked.now(run) == RUNS

    def test_manual_start_needs_no_approval(self, forked: Forked) -> None:
        request = Start(
            source=RunSource(git_ref="refs/pull/1/head"),
            project="acme/site",
            workflow="ci",
            event={"name": "pull_request_opened"},
            is_fork=True,
        )
        run, _ = start(forked.context, USER, request)
        assert forked.now(run) == RUNS
        assert not run.is_trusted

    def test_approval_needs_the_role_write(self, forked: Forked) -> None:
        run = forked.opened()
        reader = replace(USER, user_id="r")
        forked.store.projects.set_member(forked.project_id, "r", ProjectRole.READ)
        with pytest.raises(Forbidden, match="the role write"):
            approve(forked.context, reader, run.run_id)
        assert forked.now(run) == HELD

    def test_project_can_disable_approval(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        run = forked.opened()
        assert forked.now(run) == RUNS
        assert not run.is_trusted
        with pytest.raises(Conflict, match="waits for no approval"):
            approve(forked.context, USER, run.run_id)

    def test_held_run_takes_no_place_in_its_group(self, forked: Forked) -> None:
        held = forked.opened()
        forked.set(pull_requests="all")
        other = forked.opened(forked.push("2"))
        assert [forked.now(held), forked.now(other)] == [HELD, RUNS]
        approve(forked.context, USER, held.run_id)
        status, is_held, reason = forked.now(held)
        assert (status, is_held) == (RunStatus.WAITING, False)
        assert (reason or "").endswith(f"held by #{other.number}")
        cancel(forked.context, USER, other.run_id)
        assert forked.now(held) == RUNS

    def test_groups_of_forks_are_separate(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        trusted = forked.by_hand("main")
        others = [forked.opened(event={"number": number}) for number in ("1", "2")]
        assert [forked.now(run) for run in (trusted, *others)] == [RUNS] * 3

    def test_held_run_can_be_cancelled(self, forked: Forked) -> None:
        run = forked.opened()
        assert cancel(forked.context, USER, run.run_id).status is RunStatus.CANCELLED
        assert not forked.store.runs.get(run.run_id).is_held
        with pytest.raises(Conflict, match="is cancelled and waits for no approval"):
            approve(forked.context, USER, run.run_id)

    def test_a_disabled_project_approves_nothing(self, forked: Forked) -> None:
        run = forked.opened()
        forked.set(disabled=True)
        with pytest.raises(Conflict, match="is disabled"):
            approve(forked.context, USER, run.run_id)
        assert forked.now(run) == HELD


def upkeep_of(forked: Forked) -> upkeep.RunUpkeep:
    return upkeep.RunUpkeep(forked.context.jobs)


class TestSecrets:
    """No way leads a stranger to a secret."""

    def refused(self, forked: Forked, run: Run, reason: str = REFUSED) -> None:
        node = forked.node(run, "use")
        assert (node.state, node.reason, node.job_id) == (NodeState.FAILED, reason, None)
        for item in forked.store.runs.nodes(run.run_id):
            if item.job_id is not None:
                definition = forked.store.jobs.get(item.job_id).definition
                assert VALUE not in str(definition)
                # Nor does what is masked tell whether a guess is right.
                assert definition.masked == ()

    def test_workflow_file_comes_from_the_base(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        run = forked.opened()
        assert run.sha == forked.head_sha
        assert forked.store.runs.files(run.run_id) == {".reactorcide/workflows/ci.yaml": BASE}
        assert [node.name for node in forked.store.runs.nodes(run.run_id)] == ["test", "use"]

    def test_without_a_base_nothing_runs(self, forked: Forked) -> None:
        with pytest.raises(JobFailed, match="the base of the pull request, which has"):
            forked.opened(event={"base_branch": "", "base_sha": ""})
        run = forked.opened(event={"base_sha": ""})
        assert forked.store.runs.files(run.run_id)[".reactorcide/workflows/ci.yaml"] == BASE
        assert run.event["base_sha"] == forked.base_sha

    def test_secret_named_by_the_base_file_is_refused(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        self.refused(forked, forked.opened())

    def test_approval_grants_no_secrets(self, forked: Forked) -> None:
        run = forked.opened()
        approve(forked.context, USER, run.run_id)
        self.refused(forked, run)

    def test_rerun_by_a_member_grants_no_secrets(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        run = forked.opened()
        cancel(forked.context, USER, run.run_id)
        self.refused(forked, rerun(forked.context, USER, run.run_id, "all"))

    def test_rerun_by_an_admin_grants_no_secrets(self, forked: Forked) -> None:
        run = forked.opened()
        cancel(forked.context, ADMIN, run.run_id)
        rerun(forked.context, ADMIN, run.run_id, "all")
        self.refused(forked, approve(forked.context, ADMIN, run.run_id))

    def test_fork_gets_no_secret_of_the_service(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        secrets.delete(forked.context.jobs, USER, forked.project_id, "pypi:token")
        rules = SecretRules(events=("pull_request_opened",))
        secrets.set_secret(forked.context.jobs, ADMIN, None, "pypi:token", VALUE, rules, ["acme/site"])
        self.refused(forked, forked.opened())

    def test_the_error_does_not_reveal_whether_a_secret_exists(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        secrets.delete(forked.context.jobs, USER, forked.project_id, "pypi:token")
        self.refused(forked, forked.opened())

    def test_fork_branch_of_the_same_name_is_different(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        rules = SecretRules(events=("pull_request_opened",), branches=("main",))
        secrets.set_secret(forked.context.jobs, USER, forked.project_id, "pypi:token", None, rules)
        self.refused(forked, forked.opened())

    @pytest.mark.parametrize("ref", ["refs/pull/1/head", "sha"])
    def test_a_member_who_starts_its_head_by_hand(self, forked: Forked, ref: str) -> None:
        run = forked.by_hand(forked.head_sha if ref == "sha" else ref)
        assert not run.is_trusted
        assert forked.node(run, "evil").reason == (
            "secret pypi:token may not be used for a commit to which no branch and no tag leads; "
            "start the run for a branch or a tag"
        )

    def test_a_commit_to_which_a_branch_or_a_tag_leads(self, forked: Forked) -> None:
        git = forked.repository.git
        before = git("rev-parse", "main")
        tip = forked.repository.commit("more", "1")
        git("checkout", "-q", "--detach")
        tagged = forked.repository.commit("more", "2")
        git("tag", "-a", "v1", "-m", "v1")
        git("checkout", "-q", "main")
        for sha in (before, tip, tagged, tip[:12]):
            assert forked.by_hand(sha).is_trusted
        git("tag", "-d", "v1")
        assert not forked.by_hand(tagged).is_trusted

    def test_a_schedule_of_its_head(self, forked: Forked) -> None:
        request = Start(
            source=RunSource(git_ref="refs/pull/1/head"), workflow="ci", event={"name": "schedule"}
        )
        (run,) = start_for_project(forked.context, forked.project_id, request)
        assert not run.is_trusted

    @pytest.mark.parametrize("event", [{"branch": "main"}, {"tag": "v1"}])
    def test_fork_head_cannot_be_claimed_as_a_branch(self, forked: Forked, event: dict[str, str]) -> None:
        with pytest.raises(InvalidInput, match="is not the one that ref leads to"):
            forked.by_hand("refs/pull/1/head", **event)

    def test_a_branch_of_the_project_may_have_it(self, forked: Forked) -> None:
        """What is refused above is refused for its being a stranger's."""
        run = forked.by_hand("main")
        job = forked.store.jobs.get(forked.node(run, "use").job_id or "")
        assert job.definition.job_env_vars["TOKEN"] == VALUE


class TestTheRest:
    """What else a stranger may not use."""

    def test_fork_writes_no_cache(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        stranger, own = forked.opened(), forked.by_hand("main")
        assert stranger.cache_scope is not None
        assert (stranger.cache_scope.branches, stranger.cache_scope.is_writable) == (
            ("fork:main", "main"),
            False,
        )
        expected = [ExpectedCache("k", ("kept",))]
        for run, is_expected in ((stranger, False), (own, True)):
            job = forked.store.jobs.get(forked.node(run, "test").job_id or "")
            assert caches.expect(forked.context.jobs, job, expected) is is_expected

    def test_fork_uses_only_the_queue_of_the_project(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        queues = []
        for queue in ("", "slow"):
            forked.set(queue=queue)
            run = forked.opened(event={"number": queue})
            queues.append(forked.store.jobs.get(forked.node(run, "test").job_id or "").definition.queue_name)
        own = forked.by_hand("main")
        queues.append(forked.store.jobs.get(forked.node(own, "test").job_id or "").definition.queue_name)
        assert queues == ["default", "slow", "gpu"]

    def test_jobs_of_a_fork_know_their_origin(self, forked: Forked) -> None:
        forked.set(pull_requests="all")
        fork, own = "https://forge.example/eve/site.git", f"file://{forked.repository.path}"
        url_with_login = fork.replace("//", "//eve:x@")
        run = forked.opened(
            event={
                "branch": "fix",
                "head_url": url_with_login,
                "author": "eve",
                "actor": "ann",
            }
        )
        of_run = {"RUN_ID": run.run_id, "WORKFLOW": "CI", "NODE": "test", "PROJECT": "acme/site"}
        of_base = {"BRANCH": "main", "PR_BASE_REF": "main", "BASE_REF": "main", "BASE_URL": own}
        assert forked.variables(run) == of_run | of_base | {
            "EVENT_TYPE": "pull_request_opened",
            "SHA": forked.head_sha,
            "DIFF_BASE": forked.base_sha,
            "SOURCE_URL": fork,
            "PR_NUMBER": "1",
            "PR_REF": "fix",
            "HEAD_URL": fork,
            "HEAD_REF": "fix",
            "HEAD_ACTOR": "eve",
            "IS_FORK_PR": "true",
        }

    def test_jobs_of_the_project_know_their_origin(self, forked: Forked) -> None:
        own = f"file://{forked.repository.path}"
        (run,) = start_for_project(
            forked.context,
            forked.project_id,
            Start(
                source=RunSource(git_ref="main"),
                workflow=None,
                event={"name": "pull_request_opened", "branch": "fix", "base_branch": "main", "actor": "ann"},
            ),
        )
        variables = forked.variables(run)
        assert {variables[name] for name in ("SOURCE_URL", "HEAD_URL", "BASE_URL")} == {own}
        assert (variables["BRANCH"], variables["HEAD_REF"], variables["HEAD_ACTOR"]) == ("main", "fix", "ann")
        assert {"IS_FORK_PR", "DIFF_BASE"}.isdisjoint(variables)
        cancel(forked.context, USER, run.run_id)
        run = forked.by_hand("main")
        variables = forked.variables(run)
        assert variables["BRANCH"] == "main"
        assert not any(name.startswith(("PR_", "HEAD_", "BASE_")) for name in variables)
        cancel(forked.context, USER, run.run_id)
        forked.repository.git("tag", "v1", "main")
        variables = forked.variables(forked.by_hand("v1"))
        assert (variables["BRANCH"], variables["TAG"]) == ("v1", "v1")

    def test_jobs_of_a_fork_belong_to_the_service_user(self, forked: Forked) -> None:
        run = forked.opened()
        approve(forked.context, ADMIN, run.run_id)
        job = forked.store.jobs.get(forked.node(run, "test").job_id or "")
        assert job.user_id == run.user_id == SERVICE_USER.user_id
