"""SIGKILL at every boundary between the database, Corndogs, the engine and the object store.

After each: the job ends as it should have, its log has every line once and in order, its artifacts are all
there, and nothing of it is left.
"""

import contextlib
from pathlib import Path

import docker
import pytest
import requests

from reactorcide import crashpoints
from reactorcide.worker.attempt.report import MAX_KILLED_PREPARATIONS
from tests.conftest import NewService
from tests.support.client import Job
from tests.support.service import Service
from tests.support.waiting import wait_until

LINES = 40
COMMAND = f"""
i=0
while [ $i -lt {LINES} ]; do
  echo out $i
  echo err $i >&2
  i=$((i + 1))
  [ $i -eq 20 ] && sleep 0.3
  true
done
cat given
for name in a b c; do echo $name > /job/artifacts/$name; done
echo '<testsuite><testcase/></testsuite>' > /job/artifacts/d.xml
"""
CLIENTS_POINTS = ("cancel-written", "delete-written")
SERVICE_POINTS = ("service-created", "services-ready")
"""Reached by jobs with services, in ``integration/test_services.py``."""
RETRY_POINTS = ("retry-decided", "retry-written")
RUN_POINTS = (
    "run-committed",
    "dependents-cancelled",
    "dependents-committed",
    "run-cancel-written",
    "run-delete-written",
    "run-approve-written",
    "project-delete-written",
    "run-rerun-written",
    "cache-stored",
    "cache-recorded",
)
"""See ``test_runs``."""
WARM_POINTS = ("warm-container-created", "warm-container-ready", "warm-container-taken")
"""See ``test_a_job_in_a_warm_container_survives_a_kill``."""
REKEY_POINTS = ("rekey-key-created", "rekey-written", "rekey-committed")
"""Reached by the command line alone, in ``cli/test_rekey.py``."""
MIGRATE_POINTS = ("migrate-objects-copied", "migrate-rows-copied")
"""Reached by the command line alone, in ``integration/test_migrate_data.py``."""
SCHEDULE_POINTS = ("schedule-due", "schedule-written")
"""See ``test_schedules``."""
OUTBOX_POINTS = ("outbox-sending", "outbox-sent", "outbox-marked")
"""See ``test_outbox``."""
DELIVERY_POINTS = ("delivery-body-stored", "delivery-stored", "delivery-runs-written")
"""See ``test_deliveries``."""
FILE_POINT, ROWS_POINT = "log-file-sealed", "log-rows-sealed"
"""One boundary, of logs that are files and of those that are rows: see ``several/test_crash_points.py``."""
NOT_OF_ONE_JOB = (
    ROWS_POINT,
    *DELIVERY_POINTS,
    *WARM_POINTS,
    *CLIENTS_POINTS,
    *RETRY_POINTS,
    *RUN_POINTS,
    *SERVICE_POINTS,
    *REKEY_POINTS,
    *MIGRATE_POINTS,
    *SCHEDULE_POINTS,
    *OUTBOX_POINTS,
)
# Another attempt follows only where the command was not handed over whole.
BEFORE_THE_COMMAND = (
    "claim-row-written",
    "container-created",
    "source-put",
    "container-attached",
    "container-started",
    "handing-over-written",
    "handover-half-sent",
)


def crash(service: Service, marker: Path) -> None:
    """Wait until the service has died at the point, then kill its other processes and start it again."""
    wait_until(lambda: not marker.exists(), 30, "the service dies at the point")
    service.kill()
    service.start()


def only_job(service: Service) -> Job | None:
    jobs = service.admin.get("jobs")["jobs"]
    assert len(jobs) <= 1
    return jobs[0] if jobs else None


def assert_whole(service: Service, job: Job) -> None:
    log = service.admin.log(job).decode().splitlines()
    for stream in ("out", "err"):
        assert [line for line in log if line.startswith(stream)] == [f"{stream} {n}" for n in range(LINES)]
    assert [line for line in log if line == "given content"] == ["given content"]
    listing = service.admin.get(f"jobs/{job['job_id']}/artifacts")["artifacts"]
    assert [item["path"] for item in listing] == ["a", "b", "c", "d.xml"]
    assert service.admin.get(f"jobs/{job['job_id']}/tests")["passed"] == 1


def assert_nothing_remains(service: Service, engine: docker.APIClient) -> None:
    wait_until(lambda: not service.containers(engine), 30, "the containers are gone")
    wait_until(
        lambda: (
            'reactorcide_queue_depth{queue="default"}' not in service.admin.request("GET", "/metrics").text
        ),
        30,
        "nothing waits",
    )


def keeps_orphans(service: Service) -> bool:
    """Whether what has no row stays for a day: another service may be storing it."""
    return "REACTORCIDE_DATABASE" in service.environment


def armed(new_service: NewService, tmp_path: Path, point: str, **options: object) -> tuple[Service, Path]:
    marker = tmp_path / "armed"
    variables = {crashpoints.VARIABLE: f"{point}={marker}"}
    service = new_service(variables, lease=3, cancel_grace=1, **options)
    source = service.source_root / "project"
    source.mkdir()
    (source / "given").write_text("given content\n")
    marker.touch()
    return service, marker


@pytest.mark.parametrize(
    "point",
    [point for point in crashpoints.POINTS if point not in NOT_OF_ONE_JOB],
)
def test_job_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, point)
    if point == FILE_POINT and "REACTORCIDE_DATABASE" in service.environment:
        pytest.skip(f"logs are rows here: {ROWS_POINT} is the point")
    # Killed in the middle of the request, the client learns nothing; the job may be there all the same.
    with contextlib.suppress(requests.ConnectionError):
        service.admin.submit(COMMAND, source_path="project")
    crash(service, marker)
    job = only_job(service)
    assert job is not None
    ended = service.admin.wait(job)
    assert (ended["status"], ended["exit_code"], ended["error"]) == ("completed", 0, None)
    assert ended["attempt"] == (2 if point in BEFORE_THE_COMMAND else 1)
    assert_whole(service, ended)
    assert_nothing_remains(service, engine)


def test_a_job_in_a_warm_container_survives_a_kill(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    """At the points of the pool, and at those at which it matters how the job got its container."""
    service, marker = armed(new_service, tmp_path, WARM_POINTS[0], warm=1)
    marker.unlink()
    claim_points = (
        "warm-container-taken",
        "source-put",
        "handing-over-written",
        "handover-half-sent",
        "handover-sent",
        "start-written",
    )
    points = (*WARM_POINTS[:2], *claim_points)
    for point, following in zip(points, (*points[1:], points[0]), strict=True):
        if point in claim_points:
            service.admin.run("true")
            service.wait_until_warm(1)
        old = [item["Id"] for item in service.warm_containers(engine)]
        marker.touch()
        job = service.admin.submit(COMMAND, source_path="project")
        wait_until(lambda: not marker.exists(), 30, f"the service dies at {point}")
        service.kill()
        old += [item["Id"] for item in service.warm_containers(engine)]
        service.environment[crashpoints.VARIABLE] = f"{following}={marker}"
        service.start()
        ended = service.admin.wait(job)
        assert (ended["status"], ended["exit_code"], ended["error"]) == ("completed", 0, None), point
        is_before = point in BEFORE_THE_COMMAND or point == "warm-container-taken"
        assert ended["attempt"] == (2 if is_before else 1), point
        assert_whole(service, ended)
        assert_nothing_remains(service, engine)
        assert old
        wait_until(lambda: not {item["Id"] for item in engine.containers(all=True)} & set(old), 20, point)  # noqa: B023
    service.stop()


def test_preparation_that_kills_the_service_is_retried_a_bounded_number_of_times(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "container-created")
    job = service.admin.submit("echo tried")
    for remaining_tries in (2, 1, 0):
        wait_until(lambda: not marker.exists(), 30, "the service dies at the point")
        service.kill()
        if remaining_tries == 2:
            # As if that had happened often before.
            with service.database() as database, database.transaction() as tx:
                tx.execute("UPDATE job SET killed_preparations = ?", (MAX_KILLED_PREPARATIONS - 2,))
        if remaining_tries:
            marker.touch()
        service.start()
    ended = service.admin.wait(job)
    assert (ended["status"], ended["error"], ended["attempt"]) == (
        "failed",
        "the service was killed before the command had started",
        3,
    )
    # The next job is none the worse.
    assert service.admin.run("echo next")["status"] == "completed"
    assert_nothing_remains(service, engine)


def test_a_retry_survives_a_kill(new_service: NewService, engine: docker.APIClient, tmp_path: Path) -> None:
    service, marker = armed(new_service, tmp_path, "retry-written")
    job = service.admin.submit("echo tried; exit 3", retries=1)
    crash(service, marker)
    ended = service.admin.wait(job)
    assert (ended["status"], ended["exit_code"], ended["attempt"]) == ("failed", 3, 2)
    attempts = service.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"]
    assert [(item["attempt"], item["error"]) for item in attempts] == [(1, "exit code 3"), (2, "exit code 3")]
    assert_nothing_remains(service, engine)


@pytest.mark.parametrize("point", RETRY_POINTS)
def test_command_that_was_not_handed_over_runs_after_a_second_kill(
    point: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "handing-over-written")
    service.admin.submit(COMMAND, source_path="project")
    wait_until(lambda: not marker.exists(), 30, "the service dies while it hands over")
    service.kill()
    service.environment[crashpoints.VARIABLE] = f"{point}={marker}"
    marker.touch()
    service.start()
    crash(service, marker)
    job = only_job(service)
    assert job is not None
    ended = service.admin.wait(job)
    assert (ended["status"], ended["exit_code"], ended["error"]) == ("completed", 0, None)
    assert_whole(service, ended)
    assert_nothing_remains(service, engine)


@pytest.mark.parametrize("method", ["cancel", "delete"])
def test_a_cancel_survives_a_kill(
    method: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, f"{method}-written")
    job = service.admin.submit("echo begun; sleep 1000")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 30, "the command runs")
    path = f"jobs/{job['job_id']}"
    with contextlib.suppress(requests.ConnectionError):
        if method == "cancel":
            service.admin.request("PUT", f"{path}/cancel")
        else:
            service.admin.request("DELETE", path)
    crash(service, marker)
    assert_nothing_remains(service, engine)
    response = service.admin.request("GET", path)
    if method == "delete":
        assert response.status_code == 404
    else:
        assert response.json()["status"] == "cancelled"
        assert response.json()["attempt"] == 1


def test_every_crash_point_is_reached_by_a_test() -> None:
    code = "".join(path.read_text() for path in Path(crashpoints.__file__).parent.rglob("*.py"))
    for point in crashpoints.POINTS:
        assert code.count(f'crashpoints.reached("{point}")') == 1
    assert code.count("crashpoints.reached(") == len(crashpoints.POINTS)
