"""Workers on other machines, when something is killed or cut off."""

from collections.abc import Iterator

import docker
import pytest

from tests.conftest import NewService
from tests.support.line import Line
from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.worker.remote.conftest import NewWorker
from tests.worker.remote.test_remote import begun, release

PRINTED = b"begun\ndone\n"


@pytest.fixture
def cut(hub: Service) -> Iterator[Line]:
    """A way to the service that can be cut."""
    line = Line(hub.port)
    yield line
    line.close()


@pytest.mark.parametrize("killed", ["worker", "service", "both"])
def test_what_is_killed_goes_on_where_it_was(
    new_service: NewService, new_worker: NewWorker, engine: docker.APIClient, killed: str
) -> None:
    service = new_service({}, concurrency=0, port=free_port())
    worker = new_worker(service)
    job = begun(service.admin)
    if killed != "service":
        worker.kill()
    if killed != "worker":
        service.kill()
    if killed == "both":
        # It waits for the service, and touches no container meanwhile.
        worker.launch()
        wait_until(lambda: "waiting: " in worker.log_text(), 20, "the worker waits for its service")
    if killed != "worker":
        service.start()
    if killed == "worker":
        worker.start()
    elif killed == "both":
        wait_until(lambda: "adopting a job" in worker.log_text(), 20, "the job is adopted")
    release(engine, worker)
    ended = service.admin.wait(job)
    assert (ended["status"], ended["attempt"], service.admin.log(job)) == ("completed", 1, PRINTED)


def test_no_job_is_given_to_a_worker_that_is_gone(hub: Service, new_worker: NewWorker) -> None:
    gone = new_worker(hub, "gone")
    assert hub.admin.run(queue_name="gone")["worker_id"] == gone.worker_id
    # It is the one that waits longest, and would be the first to get a job.
    there = new_worker(hub, "gone")
    gone.kill()
    for _ in range(3):
        assert hub.admin.run(queue_name="gone")["worker_id"] == there.worker_id


def test_a_worker_that_is_cut_off_goes_on_and_delivers_later(
    hub: Service, cut: Line, new_worker: NewWorker, engine: docker.APIClient
) -> None:
    worker = new_worker(hub, "cut", server=cut.url)
    job = begun(hub.admin, queue_name="cut")
    cut.cut()
    release(engine, worker)
    wait_until(
        lambda: [item["State"] for item in worker.containers(engine)] == ["exited"],
        20,
        "the command has ended",
    )
    assert hub.admin.job(job)["status"] == "running"
    cut.mend()
    ended = hub.admin.wait(job, deadline_s=60)
    assert (ended["status"], ended["attempt"], hub.admin.log(job)) == ("completed", 1, PRINTED)


def test_a_worker_that_is_cut_off_for_too_long_ends_its_container(
    hub: Service, cut: Line, new_worker: NewWorker, engine: docker.APIClient
) -> None:
    worker = new_worker(hub, "lost", server=cut.url, lost_after=2)
    job = begun(hub.admin, queue_name="lost")
    cut.cut()
    wait_until(
        lambda: not any(item["State"] == "running" for item in worker.containers(engine)),
        20,
        "the container is ended",
    )
    assert hub.admin.job(job)["status"] == "running"
    cut.mend()
    ended = hub.admin.wait(job, deadline_s=60)
    assert (ended["status"], ended["attempt"]) == ("failed", 1)
    assert "did not reach the service for more than 2 s (--lost-after)" in ended["error"]


def test_a_drained_or_forgotten_worker_takes_no_jobs_and_why_says_so(
    hub: Service, new_worker: NewWorker
) -> None:
    worker = new_worker(hub, "own")
    assert hub.admin.run(queue_name="own")["worker_id"] == worker.worker_id
    assert hub.admin.request("POST", f"workers/{worker.worker_id}/drain").status_code == 204
    waits = hub.admin.submit(queue_name="own")
    why = f"jobs/{waits['job_id']}/why"
    wait_until(lambda: "is drained" in hub.admin.get(why)["reason"], 10, "the reason is named")
    other = hub.admin.submit(queue_name="nobody-takes-it")
    reason = hub.admin.get(f"jobs/{other['job_id']}/why")["reason"]
    hub.admin.cancel(other)
    assert "no worker takes jobs from the queue nobody-takes-it" in reason or "not connected" in reason
    assert hub.admin.request("POST", f"workers/{worker.worker_id}/resume").status_code == 204
    assert hub.admin.wait(waits)["status"] == "completed"
    assert hub.admin.request("DELETE", f"workers/{worker.worker_id}").status_code == 204
    wait_until(lambda: "refuses this worker" in worker.log_text(), 40, "the secret is refused")


def test_a_service_that_takes_less_than_before_says_so_in_the_job(
    new_service: NewService, new_worker: NewWorker, engine: docker.APIClient
) -> None:
    service = new_service(concurrency=0, port=free_port())
    worker = new_worker(service)
    job = begun(service.admin, after="head -c 9000000 /dev/zero; cp /bin/busybox /job/artifacts/large")
    service.stop()
    service.options |= {"max_artifact_bytes": 10_000, "max_log_bytes": 4 << 20}
    service.start()
    release(engine, worker)
    ended = service.admin.wait(job, deadline_s=60)
    assert (ended["status"], ended["error"], ended["log_truncated"]) == ("completed", None, True)
    assert service.admin.log(job).startswith(b"begun\n")
    listing = service.admin.get(f"jobs/{job['job_id']}/artifacts")
    assert (listing["artifacts"], listing["artifacts_truncated"]) == ([], True)
