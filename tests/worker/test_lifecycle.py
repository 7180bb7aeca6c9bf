"""Any order of submissions, cancels, outages, crashes and late reports, on a fake engine and a fake clock.

Everything happens in one thread: a step is one round of the worker's loop, and a crash is an exception that
nothing catches, at one of the named points or while a command hangs. What is asserted after each step:
a job that is over stays so; no job ever has two containers, or two attempts that run, or is started more
often than its retries allow; what was cancelled while it waited never starts. At the end every job is over.
"""

import itertools
import json
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reactorcide import crashpoints
from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.domain.accounts import Role, User
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import Conflict, CorndogsUnavailable
from reactorcide.domain.jobs import FINAL, WAITING, Job, JobStatus, Outcome
from reactorcide.domain.runs import Commit, NodeState, Run, RunFilter, RunSource, RunStatus
from reactorcide.duties import Duty
from reactorcide.jobs import JobContext, cancel, delete, ending, explain, lifecycle
from reactorcide.jobs.dependents import graph_of
from reactorcide.jobs.hints import WorkerHints
from reactorcide.jobs.sealing import Sealing
from reactorcide.jobs.submit import submit
from reactorcide.jobs.tasks import TASK_CLAIMED
from reactorcide.jobs.upkeep import QueueUpkeep
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.metrics import Metrics
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.runner.fake import FakeRunner
from reactorcide.runs.cancel import cancel as cancel_run
from reactorcide.runs.request import Start
from reactorcide.runs.rerun import Only, rerun
from reactorcide.runs.start import start
from reactorcide.runs.upkeep import RunUpkeep
from reactorcide.sources.roots import SourceRoots
from reactorcide.store.database import Database
from reactorcide.worker.attempt import Attempt, Limits
from reactorcide.worker.interrupt import Reason
from reactorcide.worker.local import LocalPort, queue_duties, run_duties
from reactorcide.worker.loop import Worker
from reactorcide.worker.prepare import Preparation
from reactorcide.workflows.model import WhenFull
from reactorcide.workflows.resolve import run_status
from tests.support.store import new_store
from tests.worker.conftest import run_context

USER = User(user_id="u", username="u", email=None, role=Role.USER, is_active=True, created_at_ms=0)
LEASE_S = 60.0
RUN_POINTS = ("run-committed", "submit-task-made", "dependents-cancelled", "dependents-committed")
COMMANDS = ("print x; exit 0", "print x; exit 3", "print x; hang", "deaf; hang")


groups = st.sampled_from(
    [
        *["description: in no group"] * 3,
        *(f"concurrency: {{group: {name}, when_full: {rule}}}" for name in "ab" for rule in WhenFull),
    ]
)
"""A key of a job or of a workflow."""
graph_jobs = st.builds(
    "command: {}, allow_failure: {}, condition: {}, {}, {}".format,
    st.sampled_from([json.dumps(command) for command in COMMANDS]),
    st.sampled_from(("true", "false")),
    st.sampled_from(("all_success", "no_failure", "always", "any_failed")),
    st.sampled_from(
        ("retries: 0", "retries: 1", "matrix: {n: [1, 2]}", "matrix: {n: [1, 2], max_parallel: 1}")
    ),
    groups,
)
"""The keys of a job, but for what it needs."""


def workflow(jobs: list[str], group: str) -> str:
    """Return a workflow in which each job needs the one before it, and every other one the first, too."""
    lines = []
    for number, keys in enumerate(jobs):
        needs = sorted({0, number - 1}) if number % 2 else [number - 1]
        # Without a need none of them can fail.
        keys = keys if number else keys.replace("any_failed", "always")
        needed = ", ".join(f"j{need}" for need in needs) if number else ""
        lines.append(f"  j{number}: {{{keys}, timeout: 100, checkout: false, needs: [{needed}]}}")
    return f"name: CI\non: push\n{group}\njobs:\n" + "\n".join(lines)


class Killed(BaseException):
    """The service was killed: nobody catches it, and nothing is cleared up."""


class Clock:
    """Wall clock and stopwatch in one, moved by the test alone."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * 10**9

    def time_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def advance(self, seconds: float) -> None:
        self.ns += int(max(0.0, seconds) * 1e9)


class Cable:
    """The way to Corndogs, which can be cut."""

    def __init__(self, corndogs: GrpcCorndogs) -> None:
        self._corndogs = corndogs
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise CorndogsUnavailable("Corndogs does not answer")
        return getattr(self._corndogs, name)


class SteppedWorker(Worker):
    """A worker whose attempts run on demand, in the caller's thread."""

    def _run(self, attempt: Attempt) -> None:
        self._running[attempt.job.job_id] = attempt
        if self._port.is_cancelled(attempt.job):
            attempt.interrupt.set(Reason.CANCELLED)

    def step(self) -> None:
        """Do all the duties, claim what there are places for, and run that."""
        for duty in self._duties.duties:
            self._duties.guard(duty.name, duty.call)
        self._background.do_waiting()
        if self._recovery.is_done:
            self._duties.guard("claim", self._claim)
        for job_id, attempt in list(self._running.items()):
            attempt.run()
            del self._running[job_id]
        self._background.do_waiting()

    def held(self) -> list[Attempt]:
        """Return the attempts that a crash now would leave."""
        return list(self._running.values())


class Lifecycle(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="reactorcide-lifecycle-")
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock()
        self.crash_at: str | None = None
        self.kills: Counter[str] = Counter()
        self._patch()
        base = Path(self.directory.name)
        self.database = Database(base / "jobs.db")
        self.database.migrate()
        self.server = EmbeddedCorndogs(base / "corndogs.db", clock_ns=self.clock.time_ns)
        self.server.start()
        self.corndogs = GrpcCorndogs(self.server.address)
        self.cable = Cable(self.corndogs)
        self.preparation = Preparation(SourceRoots([base], None), base / "workspaces", {})
        objects = FilesystemObjectStore(base / "objects")
        store, logs = new_store(self.database), LocalLogStore(base / "logs", objects)
        self.context = JobContext(
            store=store,
            objects=objects,
            logs=logs,
            notifier=LocalNotifier(),
            metrics=Metrics(),
            corndogs=self.cable,  # all of it, while it is not cut
            rules=self.preparation.rules,
            hints=WorkerHints(),
            sealing=Sealing(store, logs, objects),
        )
        self.context.store.instance.id("instance")
        self.context.store.instance.open_vault()
        self.files: dict[str, bytes] = {}
        self.runs = run_context(
            self.context,
            SimpleNamespace(commit=lambda *_, **__: Commit(files=self.files, repository="r", sha="a")),
        )
        self.runner = FakeRunner()
        self.runner.idle = self._idle
        self.patience = False
        self.errors = ErrorLog()
        logging.getLogger("reactorcide").addHandler(self.errors)
        self.accepted: dict[str, JobDefinition] = {}
        self.deleted: set[str] = set()
        self.over: dict[str, JobStatus] = {}
        self.cancelled_early: dict[str, int] = {}
        """Jobs that were cancelled while they waited, and how often they had been started by then."""
        self.stale: list[Attempt] = []
        self._start()

    def _patch(self) -> None:
        time = SimpleNamespace(time_ns=self.clock.time_ns)
        for module in ("lib.clock", "lib.ids"):
            self.patch.setattr(f"reactorcide.{module}.time", time)
        for module in ("attempt", "artifacts", "container", "ending", "output"):
            self.patch.setattr(f"reactorcide.worker.attempt.{module}.monotonic", self.clock.monotonic)
        self.patch.setattr("reactorcide.worker.loop.monotonic", self.clock.monotonic)
        # Ids in order of their making, so that a sequence of steps always means the same.
        numbers = itertools.count(1)
        ids = SimpleNamespace(urandom=lambda size: next(numbers).to_bytes(size, "big"))
        self.patch.setattr("reactorcide.lib.ids.os", ids)
        self.patch.setattr("reactorcide.jobs.upkeep.time_ns", self.clock.time_ns)
        # What is waited for by the real clock, and would not come by the test's own.
        for name in (
            "patience._RETRY_S",
            "container._UNSEEN_HAND_OVER_S",
            "container.LOOK_S",
            "output.LOOK_S",
        ):
            self.patch.setattr(f"reactorcide.worker.attempt.{name}", 0.0)
        self.patch.setattr(crashpoints, "reached", self._reached)

    def _reached(self, point: str) -> None:
        if point == self.crash_at:
            self.crash_at = None
            self.kills[point] += 1
            raise Killed(point)

    def _idle(self, seconds: float) -> None:
        """A command hangs: either time passes, or the service is killed meanwhile."""
        self._late_reports(ended=True)
        self._late_reports(ended=False)
        if not self.patience:
            raise Killed("while a command hangs")
        self.clock.advance(seconds)

    def _start(self) -> None:
        """Start the service: a new worker knows of nothing that ran before."""
        limits = Limits(prepare_timeout_s=30, cancel_grace_s=1.0, pids=100, artifact_bytes=0, artifacts=0)
        port = LocalPort(self.context, lease_s=LEASE_S, worker_id="w")
        # The janitor's, who works beside the worker.
        purge = Duty("purge", 0.0, lambda: delete.purge_ended(self.context), 0.0)
        self.worker = SteppedWorker(
            port,
            self.runner,
            self.preparation,
            limits,
            concurrency=3,
            queues=(),
            duties=[
                *queue_duties(QueueUpkeep(self.context, lease_s=LEASE_S)),
                *run_duties(RunUpkeep(self.context)),
                purge,
            ],
        )
        self.context.store.tasks.submit_interrupted()

    def _alive(self, call: Any, crash_at: str | None) -> Any:
        """Return what ``call`` returns; ``None`` where the service was killed in it, and started anew."""
        self.crash_at = crash_at
        try:
            return call()
        except Killed:
            self.stale += self.worker.held()
            self._start()
            return None
        finally:
            self.crash_at = None

    def _some_job(self, chance: random.Random) -> str | None:
        job_ids = sorted(set(self.accepted) - self.deleted)
        return chance.choice(job_ids) if job_ids else None

    # --- what happens --------------------------------------------------------------------------

    @rule(
        command=st.sampled_from(COMMANDS),
        retries=st.integers(0, 2),
        priority=st.integers(0, 2),
        queue=st.sampled_from(("default", "other")),
        crash_at=st.sampled_from((None, None, "submit-committed", "submit-task-made")),
    )
    def somebody_submits(
        self, command: str, retries: int, priority: int, queue: str, crash_at: str | None
    ) -> None:
        """A job comes; its submitter is killed perhaps."""
        self.submit(command, retries, priority, queue, crash_at)

    def submit(self, command: str, retries: int, priority: int, queue: str, crash_at: str | None) -> None:
        """Submit a job, and note it."""
        definition = JobDefinition(
            name="n",
            job_command=command,
            source_type="copy",
            runner_image="alpine:latest",
            timeout_seconds=100,
            retries=retries,
            priority=priority,
            queue_name=queue,
        )
        self._alive(lambda: submit(self.context, USER, definition), crash_at)
        for job_id in self._rows():
            # One whose submitter was killed counts too: it is on disk.
            self.accepted.setdefault(job_id, definition)

    @rule(
        jobs=st.lists(graph_jobs, min_size=1, max_size=5),
        group=groups,
        crash_at=st.sampled_from((None, *RUN_POINTS)),
    )
    def somebody_starts_a_run(self, jobs: list[str], group: str, crash_at: str | None) -> None:
        """A run comes, of a graph in which each job needs some of those before it."""
        self.files = {".reactorcide/workflows/ci.yaml": workflow(jobs, group).encode()}
        request = Start(source=RunSource(git_url="file:///x"), workflow=None, event={"name": "manual"})
        self._alive(lambda: start(self.runs, USER, request), crash_at)

    @rule(chance=st.randoms(use_true_random=False), crash_at=st.sampled_from((None, "run-cancel-written")))
    def cancel_a_run(self, chance: random.Random, crash_at: str | None) -> None:
        """A user cancels a run."""
        self._change_a_run(chance, crash_at, lambda run_id: cancel_run(self.runs, USER, run_id))

    @rule(
        chance=st.randoms(use_true_random=False),
        only=st.sampled_from(("all", "failed")),
        crash_at=st.sampled_from((None, "run-rerun-written", "dependents-cancelled", "dependents-committed")),
    )
    def repeat_a_run(self, chance: random.Random, only: Only, crash_at: str | None) -> None:
        """A user repeats a run."""
        self._change_a_run(chance, crash_at, lambda run_id: rerun(self.runs, USER, run_id, only))

    def _change_a_run(
        self, chance: random.Random, crash_at: str | None, change: Callable[[str], object]
    ) -> None:
        runs = self._runs()
        if not runs:
            return
        run_id = chance.choice(runs).run_id

        def call() -> None:
            with suppress(Conflict):
                change(run_id)

        self._alive(call, crash_at)

    @rule(chance=st.randoms(use_true_random=False), crash_at=st.sampled_from((None, None, "cancel-written")))
    def cancel(self, chance: random.Random, crash_at: str | None) -> None:
        """A user cancels a job."""
        job_id = self._some_job(chance)
        if job_id is None:
            return
        waited = self.context.store.jobs.get(job_id).status in WAITING

        def call() -> Job | None:
            try:
                return cancel.cancel(self.context, USER, job_id)
            except Conflict:
                return None

        self._alive(call, crash_at)
        if waited:
            assert self.context.store.jobs.get(job_id).status is JobStatus.CANCELLED
            self.cancelled_early[job_id] = self._starts()[job_id]

    @rule(chance=st.randoms(use_true_random=False), crash_at=st.sampled_from((None, None, "delete-written")))
    def delete(self, chance: random.Random, crash_at: str | None) -> None:
        """A user deletes a job."""
        job_id = self._some_job(chance)
        if job_id is None:
            return
        if self.context.store.jobs.get(job_id).run_id is not None:
            with pytest.raises(Conflict):
                delete.delete(self.context, USER, job_id)
            return
        self._alive(lambda: delete.delete(self.context, USER, job_id), crash_at)
        self.deleted.add(job_id)

    @rule(crash_at=st.none() | st.sampled_from(crashpoints.POINTS), patience=st.booleans())
    def work(self, crash_at: str | None, patience: bool) -> None:
        """The worker does a round, and is killed in it perhaps."""
        self.patience = patience
        self._alive(self._round, crash_at)

    def _round(self) -> None:
        self.worker.step()
        self.context.sealing.do_waiting()

    @rule(seconds=st.sampled_from((1.0, 6.0, 20.0, 70.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule(chance=st.randoms(use_true_random=False))
    def a_command_ends(self, chance: random.Random) -> None:
        """A command that hangs goes on by itself, and ends."""
        hanging = [one for one in self.runner.containers.values() if one.is_handed_over and one.ended is None]
        if hanging:
            chance.choice(hanging).receive("KILL")

    @rule(away=st.sampled_from((None, None, None, "the engine", "Corndogs")))
    def something_goes_or_comes(self, away: str | None) -> None:
        """The engine or Corndogs goes away, and what was away is back."""
        self.runner.available = away != "the engine"
        self.cable.cut = away == "Corndogs"

    @precondition(lambda self: self.stale)
    @rule(ended=st.booleans())
    def stale_workers_report(self, ended: bool) -> None:
        """Workers that were killed write down how their attempts ended, after that was judged."""
        self._late_reports(ended=ended)

    def _late_reports(self, *, ended: bool) -> None:
        rows = self._rows()
        for job in (attempt.job for attempt in self.stale if attempt.job.job_id in rows):
            before = self.context.store.jobs.get(job.job_id)
            if before.attempt == job.attempt and before.status is JobStatus.RUNNING:
                continue
            if ended:
                ending.finish(self.context, job, Outcome(exit_code=0, error=None))
            else:
                lifecycle.try_again(self.context, job, "late", delay_s=0)
            assert self.context.store.jobs.get(job.job_id) == before

    # --- what always holds ---------------------------------------------------------------------

    @invariant()
    def a_job_that_is_over_stays_so(self) -> None:
        for job_id, status in self._rows().items():
            assert self.over.get(job_id, status) is status
            if status in FINAL:
                self.over[job_id] = status

    @invariant()
    def every_job_is_there_and_says_what_it_waits_for(self) -> None:
        assert set(self.accepted) - self.deleted <= set(self._rows())
        for job_id in set(self.accepted) - self.deleted:
            assert explain.explain(
                self.context, self.context.store.jobs.get(job_id), [self.worker.view()]
            ).reason

    @invariant()
    def at_most_one_attempt_runs(self) -> None:
        containers = Counter(one.spec.job_id for one in self.runner.containers.values())
        assert max(containers.values(), default=0) <= 1
        for job_id in self._rows():
            attempts = self.context.store.attempts.of_job(job_id)
            assert sum(item.completed_at_ms is None for item in attempts) <= 1
            assert self._starts()[job_id] <= 1 + self.accepted[job_id].retries
        for job_id, starts in self.cancelled_early.items():
            assert self._starts()[job_id] == starts

    @invariant()
    def no_run_waits_for_nothing(self) -> None:
        """What ends a job says in the same transaction what follows: there is no moment in between."""
        runs = [(run, self.context.store.runs.nodes(run.run_id)) for run in self._runs()]
        # A group has one place.
        of_runs = Counter(run.group_key for run, _ in runs if run.status is RunStatus.RUNNING)
        of_nodes = Counter(
            node.group_key for _, nodes in runs for node in nodes if node.state is NodeState.ACTIVE
        )
        for places in (of_runs, of_nodes):
            del places[None]
            assert max(places.values(), default=0) <= 1
        for run, nodes in runs:
            states = {node.name: node.state for node in nodes}
            assert not any(node.is_held for node in nodes if node.state is not NodeState.WAITING)
            if run.status is RunStatus.WAITING:
                assert run.group_key in of_runs
                assert NodeState.ACTIVE not in states.values()
                continue
            # Nobody waits for a place that is free.
            held = {node.group_key for node in nodes if node.is_held}
            assert held <= set(of_nodes)
            for node in nodes:
                if node.state is NodeState.ACTIVE:
                    assert node.job_status is not None
                    assert node.job_status not in FINAL
                elif node.job_status is not None and node.state is not NodeState.WAITING:
                    assert node.job_status in FINAL
            assert run.is_final or NodeState.ACTIVE in states.values() or held
            is_cancelled = run.status is RunStatus.CANCELLED
            assert run.status is run_status(graph_of(nodes), states, is_cancelled=is_cancelled)

    @invariant()
    def nothing_unexpected_was_logged(self) -> None:
        assert self.errors.messages == []

    def _starts(self) -> Counter[str]:
        """Return how often each job's command was started."""
        return Counter(spec.job_id for spec in self.runner.started)

    def _rows(self) -> dict[str, JobStatus]:
        with self.database.read() as db:
            rows = db.execute_sql("SELECT job_id, status, run_id FROM job").fetchall()
        for job_id, _, run_id in rows:
            if run_id is not None and job_id not in self.accepted:
                self.accepted[job_id] = self.context.store.jobs.get(job_id).definition
        return {job_id: JobStatus(status) for job_id, status, _ in rows}

    def _runs(self) -> list[Run]:
        return self.context.store.runs.page(RunFilter(), limit=1000)[0]

    # --- the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        """When all is well again, every job ends, and no container or task remains."""
        try:
            self.runner.available, self.cable.cut, self.patience = True, False, True
            # A task whose submitter was killed, and whose job was then cancelled, is known to Corndogs
            # alone: it goes when its queue is looked at for the next job.
            for queue in ("default", "other"):
                self.submit("exit 0", 0, -1, queue, None)
            for _ in range(300):
                self.clock.advance(LEASE_S + 1)
                self._alive(self.worker.step, None)
                if all(run.is_final for run in self._runs()) and not self.runner.containers:
                    break
            for _ in range(30):
                self.clock.advance(LEASE_S + 1)
                self._alive(self.worker.step, None)
            rows = self._rows()
            self.no_run_waits_for_nothing()
            assert all(run.is_final for run in self._runs())
            assert set(rows.values()) <= set(FINAL), rows
            assert set(self.accepted) - self.deleted == set(rows)
            assert self.runner.containers == {}
            counts: Counter[str] = Counter()
            for queue in ("default", "other"):
                counts.update(self.corndogs.task_state_counts(queue))
            # One of these that was claimed, and never leased, nobody will ever hear of.
            unknown = min(self.kills["submit-task-made"], self.kills["claim-task-taken"])
            assert set(counts) <= {TASK_CLAIMED}
            assert counts.total() <= unknown
            self.nothing_unexpected_was_logged()
        finally:
            logging.getLogger("reactorcide").removeHandler(self.errors)
            self.corndogs.close()
            self.server.stop()
            self.database.close()
            self.patch.undo()
            self.directory.cleanup()


class ErrorLog(logging.Handler):
    """Keeps what nobody reckoned with."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
