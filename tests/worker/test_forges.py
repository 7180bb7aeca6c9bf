"""From a push to the statuses of its commit: a real forge, database, queue and sender, and a fake engine."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reactorcide.deliveries import receive, work
from reactorcide.domain.runs import Run, RunFilter, RunStatus
from reactorcide.network.addresses import AddressRules
from reactorcide.network.http import HttpClient
from reactorcide.outbox.commit_statuses import CommitStatuses
from reactorcide.outbox.sender import Sender
from reactorcide.projects import change
from reactorcide.runs.cancel import cancel
from reactorcide.sources.roots import SourceRoots
from reactorcide.store import outbox
from reactorcide.store.outbox import STATUSES
from reactorcide.worker.prepare import Preparation
from tests.support.dialects import Delivery as Sent
from tests.support.forge import TOKEN, Failure, running_forge
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House, run_context

HERE = AddressRules(allow=["127.0.0.1"])
_PASSES = "name: CI\non: push\njobs: {a: {command: exit 0, checkout: false}}\n"
_HANGS = _PASSES.replace("exit 0", "print x; hang")
_RETRY_SOON = Failure(429, {"Retry-After": "1"})
FILES = {
    "completed": _PASSES,
    "failed": _PASSES.replace("exit 0", "exit 1"),
    "cancelled": _HANGS,
    "skipped": _PASSES.replace("jobs:", "paths: {include: [docs/**]}\njobs:"),
    "wrong": _PASSES.replace("command", "comand"),
    "superseded": _HANGS.replace("jobs:", "concurrency: {group: one, when_full: replace}\njobs:"),
}


class Team:
    """A repository at a forge, its project, a worker and the sender of the project's statuses."""

    def __init__(
        self, house: House, path: Path, dialect: str, files: Mapping[str, str], *, timeout_s: float = 10.0
    ) -> None:
        self._running = ExitStack()
        self.forge = self._running.enter_context(running_forge(path / "forge", dialect))
        self.repository = self.forge.repository(
            "acme/site", {f"workflows/{name}.yaml": text for name, text in files.items()}
        )
        self.house = house
        self.store = house.context.store
        preparation = Preparation(SourceRoots([path], None), path / "commits", {}, addresses=HERE)
        self.context = run_context(house.context, preparation)
        fields = {"forge": self.forge.dialect.kind.value, "forge_url": self.forge.url}
        project, self.secret = change.create(
            house.context, USER, "acme/site", self.repository.push_url, fields, token=TOKEN
        )
        self.project_id = project.project_id
        http = HttpClient(HERE.refusal, timeout_s=timeout_s)
        lines = {STATUSES: CommitStatuses(self.store, http, "https://ci.example")}
        self.sender = Sender(self.store, lines, house.context.notifier, house.context.metrics)
        self.sender.start()
        house.worker()

    def close(self) -> None:
        self.sender.stop(10)
        self._running.close()

    def push(self, content: str) -> str:
        """Push a commit, take its delivery and work on it; return the commit."""
        sha = self.repository.commit("src", content)
        for sent in self.repository.push():
            self._deliver(sent)
        return sha

    def _deliver(self, sent: Sent) -> None:
        headers, body = self.forge.dialect.request(sent, self.secret)
        lower = {name.lower(): value for name, value in headers.items()}
        project = receive.expecting(self.house.context, self.project_id)
        work.work_on(self.context, receive.receive(self.house.context, project, lower, [body]))

    def runs(self, sha: str) -> dict[str, Run]:
        runs, _ = self.store.runs.page(RunFilter(project_id=self.project_id), limit=100, after=None)
        return {run.workflow_id: run for run in runs if run.sha == sha}

    def wait_for_runs(self, sha: str, **statuses: RunStatus) -> None:
        def are_so() -> bool:
            runs = self.runs(sha)
            return all(runs[workflow].status is status for workflow, status in statuses.items())

        wait_until(are_so, 30, f"{statuses}")

    def cancel_open(self, sha: str) -> None:
        for run in self.runs(sha).values():
            if not run.is_final:
                cancel(self.context, USER, run.run_id)

    def wait_for(self, sha: str, **states: str) -> None:
        """Wait until the forge has these states, by workflow, and see that none came after its end."""
        expected = {f"reactorcide/push/{workflow}": state for workflow, state in states.items()}
        wait_until(
            lambda: self.forge.final(sha) == expected, 30, f"{expected}, not {self.forge.statuses(sha)}"
        )
        for context, state in expected.items():
            shown = [status.state for status in self.forge.statuses(sha, context)]
            # One that was not told in time, or twice, is not wrong.
            assert set(shown[:-1]) <= {"pending", state}
            assert sorted(shown, key=["pending", state].index) == shown

    @property
    def problem(self) -> str:
        return self.store.outbox.problem(STATUSES, self.project_id) or ""

    def wait_for_problem(self, sentence: str) -> None:
        wait_until(lambda: sentence in self.problem, 20, f"the problem {sentence!r}")


@pytest.fixture
def teams(house: House, tmp_path: Path) -> Iterator[Any]:
    opened: list[Team] = []

    def team(dialect: str, files: Mapping[str, str], **options: float) -> Team:
        opened.append(Team(house, tmp_path, dialect, files, **options))
        return opened[-1]

    yield team
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("dialect", "failure"),
    [
        ("github", _RETRY_SOON),
        ("gitea", Failure(503)),
        ("forgejo", Failure(0)),
        ("gitlab", Failure(500)),
    ],
)
def test_each_end_of_a_run_reaches_the_forge(teams: Any, dialect: str, failure: Failure) -> None:
    """Whatever the forge answers first, and whatever becomes of the project."""
    team: Team = teams(dialect, FILES)
    error, failed = ("failed", "failed") if dialect == "gitlab" else ("error", "failure")
    team.forge.fail(failure, times=1)
    first = team.push("1")
    team.wait_for_runs(first, completed=RunStatus.COMPLETED, failed=RunStatus.FAILED)
    cancel(team.context, USER, team.runs(first)["cancelled"].run_id)
    second = team.push("2")
    ends = {
        "completed": "success",
        "failed": failed,
        "cancelled": error,
        "skipped": "success",
        "wrong": error,
        "superseded": error,
    }
    team.wait_for(first, **ends)
    (superseded,) = team.forge.statuses(first, "reactorcide/push/superseded")[-1:]
    assert superseded.description.startswith("superseded by #")
    assert superseded.target_url == f"https://ci.example/runs/{team.runs(first)['superseded'].run_id}"
    team.wait_for_runs(second, completed=RunStatus.COMPLETED, failed=RunStatus.FAILED)
    team.cancel_open(second)
    team.wait_for(second, **ends)
    # What is still owed when the project is removed ends as an error.
    team.forge.fail(_RETRY_SOON)
    third = team.push("3")
    team.wait_for_runs(third, completed=RunStatus.COMPLETED, failed=RunStatus.FAILED)
    team.cancel_open(third)
    change.remove(team.house.context, USER, team.project_id)
    team.forge.recover()
    team.wait_for(third, **dict.fromkeys(ends, error))
    assert {status.description for status in team.forge.statuses(third)} == {"the project was deleted"}


def test_misbehaving_forge_gets_the_last_status(teams: Any) -> None:
    team: Team = teams("github", {"ci": _PASSES})
    for number, (failure, sentence) in enumerate(
        [
            (
                Failure(401),
                "the project's token is wrong or has expired",
            ),
            (Failure(404), "the token may not see the repository, or there is none of that name"),
            (Failure(422), "answered 422 Unprocessable Entity (it fails on demand)"),
            (_RETRY_SOON, "answered 429 Too Many Requests"),
            (Failure(500, body="<html>"), "answered 500 Internal Server Error to"),
            (Failure(0), "cannot reach http://127.0.0.1:"),
        ]
    ):
        team.forge.fail(failure)
        sha = team.push(f"{number}")
        team.wait_for_problem(sentence)
        team.wait_for_runs(sha, ci=RunStatus.COMPLETED)
        team.forge.recover()
        team.wait_for(sha, ci="success")
        wait_until(lambda: not team.problem, 20, "there is no problem any more")
    # It is away, and then elsewhere.
    change.change(team.house.context, USER, team.project_id, {"forge_url": "http://127.0.0.1:1"}, token=TOKEN)
    sha = team.push("away")
    team.wait_for_problem("cannot reach http://127.0.0.1:1: Connection refused")
    team.wait_for_runs(sha, ci=RunStatus.COMPLETED)
    change.change(team.house.context, USER, team.project_id, {"forge_url": team.forge.url}, token=TOKEN)
    team.wait_for(sha, ci="success")


def test_late_status_is_overwritten(teams: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forge goes on with a request for whose answer nobody waits any more."""
    monkeypatch.setattr(outbox, "MAY_ARRIVE_FOR_MS", 3000)
    team: Team = teams("github", {"ci": _PASSES}, timeout_s=1.0)
    team.forge.fail(Failure(200, delay_s=3.0), times=1)
    sha = team.push("1")
    wait_until(lambda: len(team.forge.statuses(sha)) == 3, 20, "it was sent once more")
    # On a slow machine the first two come the other way round, and the third is needless.
    states = [status.state for status in team.forge.statuses(sha)]
    assert (sorted(states[:2]), states[2]) == (["pending", "success"], "success")
    wait_until(lambda: team.store.outbox.counts()[STATUSES] == 0, 20, "nothing is owed")
