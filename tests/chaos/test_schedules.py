"""SIGKILL while a schedule is due: its run starts exactly once."""

from pathlib import Path

import pytest

from reactorcide import crashpoints
from reactorcide.lib.clock import from_rfc3339
from tests.chaos.test_crash_points import crash
from tests.conftest import NewService
from tests.support.client import Client
from tests.support.clocks import Clock
from tests.support.runs import over, repository
from tests.support.waiting import wait_until

TEXT = "name: Nightly\non: schedule\njobs: {a: {command: 'true'}}\n"


def add_schedules(api: Client, source_root: Path, *names: str) -> list[str]:
    """Add a project with schedules that are due at the same time; return their paths."""
    source = repository(source_root / "of-run", {"workflows/nightly.yaml": TEXT})
    body = {"name": "acme/site", "git_url": f"file://{source.path}"}
    path = f"projects/{api.request('POST', 'projects', json=body).json()['project_id']}/schedules"
    added = [
        api.request("POST", path, json={"name": name, "cron": "0 3 * * *"}).json()["schedule_id"]
        for name in names
    ]
    return [f"{path}/{schedule_id}" for schedule_id in added]


def next_due(api: Client, path: str) -> int:
    return from_rfc3339(api.get(path)["next_due_at"][0])


@pytest.mark.parametrize("point", ["schedule-due", "schedule-written", "run-committed"])
def test_due_run_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, tmp_path: Path
) -> None:
    clock, marker = Clock(tmp_path / "clock"), tmp_path / "armed"
    service = new_service(clock.environment | {crashpoints.VARIABLE: f"{point}={marker}"}, lease=3)
    api = service.admin
    (path,) = add_schedules(api, service.source_root, "nightly")
    due_ms = next_due(api, path)
    marker.touch()
    clock.show(due_ms)
    crash(service, marker)
    wait_until(lambda: api.get(path)["occurrences"] != [], 30, "the schedule is decided on")
    (occurrence,) = api.get(path)["occurrences"]
    assert (from_rfc3339(occurrence["due_at"]), occurrence["outcome"]) == (due_ms, "started")
    (run,) = api.get("runs", project="acme/site")["runs"]
    assert occurrence["run_ids"] == [run["run_id"]]
    assert over(api, run)["status"] == "completed"
    assert api.get("runs", project="acme/site")["total"] == len(api.get(path)["occurrences"]) == 1
