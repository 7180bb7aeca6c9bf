"""SIGKILL while a schedule is due: its run starts exactly once."""

import time
from pathlib import Path

import pytest

from reactorcide import crashpoints
from reactorcide.lib.clock import from_rfc3339
from tests.chaos.test_crash_points import crash
from tests.conftest import NewService
from tests.support.runs import over, repository
from tests.support.waiting import wait_until

TEXT = "name: Nightly\non: schedule\njobs: {a: {command: 'true'}}\n"


@pytest.mark.parametrize("point", ["schedule-due", "schedule-written", "run-committed"])
def test_due_run_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, tmp_path: Path
) -> None:
    clock, marker = tmp_path / "clock", tmp_path / "armed"
    clock.write_text("0")
    environment = {
        "PYTHONPATH": str(Path(__file__).parents[1] / "support" / "clock"),
        "REACTORCIDE_TEST_CLOCK": str(clock),
        crashpoints.VARIABLE: f"{point}={marker}",
    }
    service = new_service(environment, lease=3)
    api = service.admin
    source = repository(service.source_root / "of-run", {"workflows/nightly.yaml": TEXT})
    body = {"name": "acme/site", "git_url": f"file://{source.path}"}
    path = f"projects/{api.request('POST', 'projects', json=body).json()['project_id']}/schedules"
    schedule = api.request("POST", path, json={"name": "nightly", "cron": "0 3 * * *"}).json()
    due_ms = from_rfc3339(schedule["next_due_at"][0])
    marker.touch()
    clock.write_text(str(due_ms // 1000 - int(time.time()) + 2))
    crash(service, marker)
    path += f"/{schedule['schedule_id']}"
    wait_until(lambda: api.get(path)["occurrences"] != [], 30, "the schedule is decided on")
    (occurrence,) = api.get(path)["occurrences"]
    assert (from_rfc3339(occurrence["due_at"]), occurrence["outcome"]) == (due_ms, "started")
    (run,) = api.get("runs", project="acme/site")["runs"]
    assert occurrence["run_ids"] == [run["run_id"]]
    assert over(api, run)["status"] == "completed"
    assert api.get("runs", project="acme/site")["total"] == len(api.get(path)["occurrences"]) == 1
