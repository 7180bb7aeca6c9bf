"""Schedules on a real database and queue, from a real repository, with a clock that the tests set."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from reactorcide import backup
from reactorcide.domain.errors import Conflict, Forbidden, InvalidInput, JobFailed, NotFound
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import RunStatus
from reactorcide.domain.schedules import MAX_OCCURRENCES, Schedule, WhenRunning
from reactorcide.projects import change as projects
from reactorcide.runs.cancel import cancel
from reactorcide.schedules import change, read
from reactorcide.schedules.start import BY_HAND, NOTHING_TO_START, STARTED, Due, start_by_hand
from reactorcide.store import Store
from reactorcide.store.vault import Vault
from reactorcide.worker.scheduler import Scheduler
from tests.support.store import database_of, opened_again
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House
from tests.worker.test_project_runs import CI, Project

FILES = {
    "workflows/nightly.yaml": CI.replace("push", "schedule").replace(
        "jobs:", "vars: {depth: shallow}\njobs:"
    ),
    "workflows/ci.yaml": CI,
}
DAY_MS = 86_400_000


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class Planned(Project):
    """A project with schedules, and what the clock shows."""

    now_ms = at("2026-03-01T12:00")

    def due(self) -> Due:
        return Due(self.context, lambda: self.now_ms)

    def schedule(self, **fields: Any) -> Schedule:
        """Add a schedule, as from the clock of the tests."""
        values = {"name": "nightly", "cron": "0 3 * * *", "timezone": "UTC"} | fields
        schedule = change.create(self.context.jobs, USER, self.project_id, values)
        self.store.schedules.reckon_all()
        self.look()
        return schedule

    def waiting(self) -> str | None:
        (listed,) = read.listed(self.context.jobs, USER, self.project_id)
        assert self.view(listed.schedule).waiting == listed.waiting
        return listed.waiting

    def view(self, schedule: Schedule) -> read.ScheduleView:
        return read.view(self.context.jobs, USER, self.project_id, schedule.schedule_id)

    def look(self, due: Due | None = None) -> None:
        """Do what the service does every second."""
        due = due or self.due()
        for schedule in due.decide():
            due.start(schedule, gives_up=False)

    def outcomes(self, schedule: Schedule) -> list[tuple[str, str, int]]:
        """Return due times, outcomes and numbers of runs, the oldest first."""
        occurrences = self.store.schedules.occurrences(schedule.schedule_id)
        return [
            (
                f"{datetime.fromtimestamp(item.due_at_ms / 1000, UTC):%d %H:%M}",
                item.outcome,
                len(item.run_ids),
            )
            for item in reversed(occurrences)
        ]

    def end_runs(self) -> None:
        for run in self.runs():
            if not run.is_final:
                cancel(self.context, USER, run.run_id)


@pytest.fixture
def planned(house: House, tmp_path: Path) -> Planned:
    return Planned(house, tmp_path, FILES)


def test_a_due_time_is_a_run_of_each_workflow_that_names_schedules(planned: Planned) -> None:
    schedule = planned.schedule()
    planned.look()
    assert planned.runs() == []
    planned.now_ms = at("2026-03-02T03:00")
    for _ in range(3):
        planned.look()
    (run,) = planned.runs()
    assert (run.workflow_id, run.status, run.event["name"]) == ("nightly", RunStatus.RUNNING, "schedule")
    assert run.event["branch"] == "main"
    assert planned.outcomes(schedule) == [("02 03:00", STARTED, 1)]
    stored = planned.store.schedules.get(planned.project_id, schedule.schedule_id)
    assert stored.next_due_at_ms == at("2026-03-03T03:00")


def test_schedule_can_name_one_workflow_with_vars(planned: Planned) -> None:
    planned.schedule(workflow="nightly", variables={"depth": "deep"}, branch="main")
    planned.now_ms = at("2026-03-02T03:00")
    planned.look()
    (run,) = planned.runs()
    assert planned.store.runs.variables(run.run_id)["depth"] == "deep"
    with pytest.raises(InvalidInput, match="vars belong to a workflow"):
        planned.schedule(name="other", variables={"depth": "deep"})


def test_after_an_outage_one_run_starts(planned: Planned) -> None:
    schedule = planned.schedule()
    planned.now_ms = at("2026-03-20T12:00")
    for _ in range(3):
        planned.look()
    planned.now_ms = at("2026-03-21T03:00")
    planned.end_runs()
    planned.look()
    assert planned.outcomes(schedule) == [("02 03:00", STARTED, 1), ("21 03:00", STARTED, 1)]
    assert len(planned.runs()) == 2


def test_clock_jump_neither_repeats_nor_skips_a_time(planned: Planned) -> None:
    schedule = planned.schedule()
    planned.now_ms = at("2026-03-02T03:00")
    planned.look()
    planned.end_runs()
    # Back before what was due, and on again.
    for time in ("2026-03-02T02:59", "2026-03-02T03:00", "2026-03-02T03:01"):
        planned.now_ms = at(time)
        planned.look()
        planned.look()
    assert planned.outcomes(schedule) == [("02 03:00", STARTED, 1)]
    # A year ahead, where there is one run for all that seem to be missed, and back: it goes on as before.
    planned.now_ms = at("2027-03-02T12:00")
    planned.look()
    planned.end_runs()
    planned.now_ms = at("2026-03-02T12:00")
    planned.look()
    for day in (3, 4, 5):
        planned.now_ms = at(f"2026-03-0{day}T03:00")
        planned.look()
        planned.end_runs()
    days = [due for due, _, _ in planned.outcomes(schedule)]
    assert days == ["02 03:00", "03 03:00", "04 03:00", "05 03:00"]
    assert len(planned.runs()) == 4


@pytest.mark.parametrize("when_running", list(WhenRunning))
def test_unfinished_run_skips_or_queues_the_next(
    planned: Planned, when_running: WhenRunning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "now_ms", lambda: planned.now_ms)
    schedule = planned.schedule(when_running=when_running)
    for day in (2, 3, 4):
        planned.now_ms = at(f"2026-03-0{day}T03:00")
        planned.look()
        planned.look()
    assert len(planned.runs()) == 1
    assert planned.waiting() == (None if when_running is WhenRunning.SKIP else "#1 is not over")
    planned.end_runs()
    planned.now_ms = at("2026-03-04T09:00")
    planned.look()
    planned.look()
    if when_running is WhenRunning.SKIP:
        assert planned.outcomes(schedule) == [
            ("02 03:00", STARTED, 1),
            ("03 03:00", "skipped: #1 was not over", 0),
            ("04 03:00", "skipped: #1 was not over", 0),
        ]
        assert len(planned.runs()) == 1
    else:
        assert planned.outcomes(schedule) == [("02 03:00", STARTED, 1), ("03 03:00", STARTED, 1)]
        assert len(planned.runs()) == 2


def test_missing_branch_is_a_failed_run_with_a_reason(planned: Planned) -> None:
    schedule = planned.schedule(branch="gone")
    planned.repository.git("tag", "gone")
    planned.now_ms = at("2026-03-02T03:00")
    planned.look()
    (run,) = planned.runs()
    url = f"file://{planned.repository.path}"
    assert (run.status, run.reason) == (RunStatus.FAILED, f'git: no branch "gone" in {url}')
    assert run.event["branch"] == "gone"
    assert planned.outcomes(schedule) == [("02 03:00", STARTED, 1)]


def test_unreachable_repository_is_retried(planned: Planned) -> None:
    schedule = planned.schedule()
    context, url = planned.context.jobs, f"file://{planned.repository.path}"
    projects.change(context, USER, planned.project_id, {}, git_url="https://git.invalid/acme/site.git")
    planned.now_ms = at("2026-03-02T03:00")
    with pytest.raises(JobFailed, match="has no address"):
        planned.look()
    assert (planned.runs(), planned.outcomes(schedule)) == ([], [])
    projects.change(context, USER, planned.project_id, {}, git_url=url)
    planned.look()
    assert planned.outcomes(schedule) == [("02 03:00", STARTED, 1)]
    planned.end_runs()
    projects.change(context, USER, planned.project_id, {}, git_url="https://git.invalid/acme/site.git")
    planned.now_ms = at("2026-03-03T03:00")
    due = planned.due()
    for item in due.decide():
        due.start(item, gives_up=True)
    assert [run.status for run in planned.runs()] == [RunStatus.CANCELLED, RunStatus.FAILED]


def test_without_a_schedule_trigger_nothing_starts(house: House, tmp_path: Path) -> None:
    planned = Planned(house, tmp_path, {"workflows/ci.yaml": CI})
    schedule = planned.schedule()
    planned.now_ms = at("2026-03-02T03:00")
    planned.look()
    assert (planned.runs(), planned.outcomes(schedule)) == ([], [("02 03:00", NOTHING_TO_START, 0)])


def test_only_enabled_schedules_start_and_a_change_applies_from_now(planned: Planned) -> None:
    schedule = planned.schedule(enabled=False)
    planned.now_ms = at("2026-03-02T03:00")
    planned.look()
    assert (planned.runs(), planned.view(schedule).next_due_at_ms) == ([], [])
    path = (planned.project_id, schedule.schedule_id)
    changed = change.change(planned.context.jobs, USER, *path, {"enabled": True, "cron": "0 4 * * *"})
    assert changed.next_due_at_ms is not None
    assert changed.next_due_at_ms > changed.updated_at_ms
    assert len(planned.view(changed).next_due_at_ms) == 5
    change.remove(planned.context.jobs, USER, *path)
    with pytest.raises(NotFound, match="there is no schedule"):
        read.view(planned.context.jobs, USER, *path)


def test_a_project_that_is_disabled_starts_nothing(planned: Planned) -> None:
    schedule = planned.schedule()
    planned.now_ms = at("2026-03-02T03:00")
    (item,) = planned.due().decide()
    projects.change(planned.context.jobs, USER, planned.project_id, {"disabled": True})
    planned.due().start(item, gives_up=False)
    assert planned.outcomes(schedule) == []
    planned.look()
    assert (planned.runs(), planned.outcomes(schedule)) == (
        [],
        [("02 03:00", "skipped: the project is disabled", 0)],
    )


def test_change_between_decision_and_start_applies(planned: Planned) -> None:
    schedule = planned.schedule()
    planned.now_ms = at("2026-03-02T03:00")
    due = planned.due()
    (item,) = due.decide()
    path = (planned.project_id, schedule.schedule_id)
    change.change(planned.context.jobs, USER, *path, {"enabled": False})
    due.start(item, gives_up=False)
    assert planned.runs() == []
    change.remove(planned.context.jobs, USER, *path)
    due.start(item, gives_up=False)
    assert planned.runs() == []


def test_manual_start_ignores_the_times(planned: Planned) -> None:
    schedule = planned.schedule()
    path = (planned.project_id, schedule.schedule_id)
    start_by_hand(planned.context, USER, *path)
    (run,) = planned.runs()
    (occurrence,) = read.view(planned.context.jobs, USER, *path).occurrences
    assert (occurrence.outcome, occurrence.run_ids) == (BY_HAND, (run.run_id,))
    reader = replace(USER, user_id="reader")
    planned.store.projects.set_member(planned.project_id, "reader", ProjectRole.READ)
    with pytest.raises(Forbidden):
        start_by_hand(planned.context, reader, *path)
    assert len(planned.runs()) == 1


def test_number_of_stored_occurrences_is_limited(planned: Planned) -> None:
    schedule = planned.schedule(cron="* * * * *")
    for _ in range(MAX_OCCURRENCES + 5):
        planned.now_ms += 60_000
        planned.look()
        planned.end_runs()
    occurrences = planned.store.schedules.occurrences(schedule.schedule_id)
    assert len(occurrences) == MAX_OCCURRENCES
    assert occurrences[0].due_at_ms == planned.now_ms


def test_missing_time_zone_is_recorded_once(planned: Planned, caplog: pytest.LogCaptureFixture) -> None:
    schedule, other = planned.schedule(), planned.schedule(name="other", workflow="nightly")
    planned.store.schedules.save(
        replace(schedule, timezone="Mars/Base", next_due_at_ms=at("2026-03-02T03:00"))
    )
    planned.now_ms = at("2026-03-02T03:00")
    planned.look()
    planned.look()
    ((_, outcome, _),) = planned.outcomes(schedule)
    assert outcome.startswith("failed: there is no time zone 'Mars/Base'")
    assert len(caplog.records) - len([item for item in caplog.records if "Mars" not in item.message]) == 1
    assert len(planned.outcomes(other)) == 1
    assert planned.view(schedule).next_due_at_ms == []


def test_names_and_limits_are_checked(planned: Planned) -> None:
    planned.schedule()
    with pytest.raises(Conflict, match="a schedule 'nightly' already"):
        planned.schedule()
    for fields, message in (
        ({"name": " "}, "a schedule's name has"),
        ({"branch": "a..b"}, "'a..b' is not a branch name"),
        ({"cron": "daily"}, "'daily' is not a cron expression"),
    ):
        with pytest.raises(InvalidInput, match=message):
            planned.schedule(**{"name": "other"} | fields)
    for number in range(99):
        # In most years it is not due, so that its next times take long.
        values = {"name": f"n{number}", "cron": f"{number % 60} 3 29 2 *", "timezone": "Europe/Berlin"}
        change.create(planned.context.jobs, USER, planned.project_id, values)
    with pytest.raises(Conflict, match="100 schedules already"):
        planned.schedule(name="one too many")
    began_s = thread_time()
    listed = read.listed(planned.context.jobs, USER, planned.project_id)
    assert thread_time() - began_s < 0.1
    assert len(listed) == 100
    assert planned.view(listed[0].schedule).next_due_at_ms[:1] == listed[0].next_due_at_ms
    planned.store.projects.remove(planned.project_id)
    assert planned.store.schedules.of(planned.project_id) == []


@pytest.fixture
def other(planned: Planned) -> Iterator[Planned]:
    """What another service on the same database sees."""
    database = opened_again(database_of(planned.context.jobs.store))
    store = Store(database, Vault.beside(database_of(planned.context.jobs.store).path))
    store.instance.open_vault()
    jobs = replace(planned.context.jobs, store=store)
    second = Planned.__new__(Planned)
    second.__dict__ |= planned.__dict__ | {"store": store, "context": replace(planned.context, jobs=jobs)}
    yield second
    database.close()


def test_two_services_on_one_database_start_one_run(planned: Planned, other: Planned) -> None:
    schedule = planned.schedule(cron="* * * * *", when_running=WhenRunning.QUEUE)
    for minute in range(1, 6):
        # One clock is a little ahead of the other.
        now_ms = at("2026-03-01T12:00") + minute * 60_000
        planned.now_ms, other.now_ms = now_ms, now_ms + 40
        barrier = threading.Barrier(6)
        problems: list[BaseException] = []

        def look(service: Planned, barrier: threading.Barrier, problems: list[BaseException]) -> None:
            due = service.due()
            occurrences = due.decide()
            barrier.wait(10)
            try:
                for item in occurrences:
                    due.start(item, gives_up=False)
            except BaseException as exc:
                problems.append(exc)

        services = [planned, other] * 3
        threads = [threading.Thread(target=look, args=(one, barrier, problems)) for one in services]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert problems == []
        assert len(planned.runs()) == minute
        planned.end_runs()
    assert [number for _, _, number in planned.outcomes(schedule)] == [1] * 5


def test_restored_schedules_continue_from_now(planned: Planned) -> None:
    schedule = planned.schedule()
    # What the backup's own test does with the file around it.
    assert backup._resume(database_of(planned.store).path, None) == 0
    planned.now_ms = at("2026-03-20T12:00")
    backup._resume(database_of(planned.store).path, "restored from a backup")
    planned.look()
    planned.look()
    assert (planned.runs(), planned.outcomes(schedule)) == ([], [])
    planned.now_ms = at("2026-03-21T03:00")
    planned.look()
    assert planned.outcomes(schedule) == [("21 03:00", STARTED, 1)]


class Slow(Due):
    """Starts nothing of the first project until it may."""

    def __init__(self, due: list[Schedule], fail: Callable[[], None]) -> None:
        self.waiting = due
        self.started: list[str] = []
        self.goes_on = threading.Event()
        self.fail = fail

    def creator(self, schedule: Schedule) -> str:
        return schedule.project_id.partition(" ")[0]

    def decide(self) -> list[Schedule]:
        return [schedule for schedule in self.waiting if schedule.schedule_id not in self.started]

    def start(self, schedule: Schedule, *, gives_up: bool) -> None:
        if schedule.project_id.startswith("slow"):
            self.goes_on.wait(20)
        self.fail()
        self.started.append(schedule.schedule_id)


@pytest.mark.parametrize(("count", "projects"), [(3, 1), (12, 12)])
def test_slow_repositories_do_not_delay_the_schedules_of_other_users(
    planned: Planned, count: int, projects: int
) -> None:
    schedule = planned.schedule()
    due = [
        replace(schedule, schedule_id=str(number), project_id=f"slow {number % projects}")
        for number in range(count)
    ] + [replace(schedule, schedule_id=f"other {number}", project_id="other") for number in range(2)]
    slow = Slow(due, lambda: None)
    scheduler = Scheduler(slow)
    scheduler.start()
    wait_until(lambda: len(slow.started) == 2, 20, "the other project's schedules are started")
    assert slow.started == ["other 0", "other 1"]
    slow.goes_on.set()
    wait_until(lambda: len(slow.started) == count + 2, 60, "all are started")
    scheduler.stop(5)
    scheduler.stop(5)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("schedule")] == []


def test_failed_start_is_retried_with_delay(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def fail() -> None:
        tries.append(0)
        if len(tries) < 3:
            raise JobFailed("git: cannot reach it")

    slow = Slow([planned.schedule()], fail)
    scheduler = Scheduler(slow)
    scheduler.look()
    wait_until(lambda: len(tries) == 1 and not scheduler._threads.keys(), 20, "it has failed")
    scheduler.look()
    assert (tries, scheduler._threads.keys()) == ([0], [])
    monkeypatch.setattr("reactorcide.worker.scheduler.monotonic", lambda: 1e9)
    scheduler.look()
    wait_until(lambda: len(tries) == 2, 20, "it is tried again")
