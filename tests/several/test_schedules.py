"""Schedules of two services on one database: each due time makes one run, whoever of them dies."""

from pathlib import Path
from typing import Any

import pytest

from reactorcide import crashpoints
from reactorcide.lib.clock import from_rfc3339
from tests.chaos.test_schedules import add_schedules, next_due
from tests.several.conftest import House
from tests.support.client import Client
from tests.support.clocks import Clock
from tests.support.runs import over
from tests.support.service import Service
from tests.support.waiting import wait_until


class Timed(Service):
    """A service with a clock of its own."""

    clock: Clock


def started_pair(house: House, **of_first: str) -> tuple[Timed, Timed]:
    """Start two services, and give the first one further variables."""
    pair = []
    for variables in (of_first, {}):
        service = house.service(Timed, lease=3, source_root=house.home / "sources")
        assert isinstance(service, Timed)
        service.clock = Clock(service.home / "clock")
        service.environment |= service.clock.environment | variables
        service.start()
        pair.append(service)
    return pair[0], pair[1]


def occurrences(api: Client, path: str) -> list[dict[str, Any]]:
    return list(api.get(path)["occurrences"])


def test_each_due_time_of_two_services_makes_one_run(house: House) -> None:
    first, second = started_pair(house)
    paths = add_schedules(first.admin, first.source_root, "a", "b", "c")
    due: list[int] = []
    for day in (1, 2):
        due.append(next_due(second.admin, paths[0]))
        for service in (first, second):
            service.clock.show(due[-1])
        for path in paths:
            wait_until(lambda: len(occurrences(second.admin, path)) == day, 30, "it is decided on")  # noqa: B023
        # The next one is skipped while this one is not over.
        for run in first.admin.get("runs", project="acme/site")["runs"]:
            assert over(second.admin, run)["status"] == "completed"
    for path in paths:
        decided = occurrences(first.admin, path)
        assert sorted(from_rfc3339(item["due_at"]) for item in decided) == due
        assert [(item["outcome"], len(item["run_ids"])) for item in decided] == [("started", 1)] * len(due)
    assert first.admin.get("runs", project="acme/site")["total"] == len(paths) * len(due)


@pytest.mark.parametrize("point", ["schedule-written"])
def test_the_other_one_starts_what_the_killed_one_has_not(point: str, house: House, tmp_path: Path) -> None:
    marker = tmp_path / "armed"
    first, second = started_pair(house, **{crashpoints.VARIABLE: f"{point}={marker}"})
    api = second.admin
    (path,) = add_schedules(api, second.source_root, "nightly")
    due_ms = next_due(api, path)
    marker.touch()
    # It is alone in knowing that the time has come.
    first.clock.show(due_ms)
    wait_until(lambda: not marker.exists(), 30, "the first one dies at the point")
    first.kill()
    second.clock.show(due_ms)
    wait_until(lambda: occurrences(api, path) != [], 30, "the second one has decided")
    (occurrence,) = occurrences(api, path)
    assert (from_rfc3339(occurrence["due_at"]), occurrence["outcome"]) == (due_ms, "started")
    (run,) = api.get("runs", project="acme/site")["runs"]
    assert occurrence["run_ids"] == [run["run_id"]]
    assert over(api, run)["status"] == "completed"
    first.start()
    # Back again, it takes part in the next one, and finds the last one done.
    next_ms = next_due(api, path)
    for service in (first, second):
        service.clock.show(next_ms)
    wait_until(lambda: len(occurrences(first.admin, path)) == 2, 30, "the next one is decided on")
    for run in api.get("runs", project="acme/site")["runs"]:
        assert over(api, run)["status"] == "completed"
    assert api.get("runs", project="acme/site")["total"] == 2
