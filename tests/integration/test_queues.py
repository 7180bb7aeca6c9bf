"""In which order jobs run, and how many at once."""

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import wait_until


def test_higher_priority_runs_first_then_submission_order(new_service: NewService) -> None:
    api = new_service().admin
    blocker = api.wait(api.submit("sleep 60"), "running")
    jobs = [api.submit(name=str(i), priority=priority) for i, priority in enumerate((0, 5, -5, 5, 2**31 - 1))]
    api.cancel(blocker)
    ended = [api.wait(job) for job in jobs]
    order = [job["name"] for job in sorted(ended, key=lambda job: str(job["started_at"]))]
    assert order == ["4", "1", "3", "0", "2"]


def test_a_higher_priority_in_another_queue_runs_first_too(new_service: NewService) -> None:
    api = new_service().admin
    blocker = api.wait(api.submit("sleep 60"), "running")
    low, high = api.submit(queue_name="a"), api.submit(queue_name="b", priority=1)
    api.cancel(blocker)
    assert api.wait(high)["started_at"] < api.wait(low)["started_at"]


def test_only_configured_queues_are_served(new_service: NewService) -> None:
    api = new_service(queue="mine").admin
    others, mine = api.submit(queue_name="others"), api.submit(queue_name="mine")
    assert api.wait(mine)["status"] == "completed"
    assert api.job(others)["status"] == "queued"


def test_number_of_concurrent_jobs_is_limited(api: Client) -> None:
    jobs = [api.submit("sleep 60") for _ in range(6)]
    (worker,) = api.get("workers")["workers"]
    assert worker["concurrency"] == 4

    def statuses() -> list[str]:
        return sorted(api.job(job)["status"] for job in jobs)

    wait_until(lambda: statuses() == ["queued"] * 2 + ["running"] * 4, 20, "four of six run")
    (worker,) = api.get("workers")["workers"]
    assert sorted(worker["running_jobs"]) == sorted(
        job["job_id"] for job in jobs if api.job(job)["status"] == "running"
    )
    for job in reversed(jobs):
        api.cancel(job)


def test_queues_show_waiting_jobs(idle_service: Service) -> None:
    user, other = idle_service.add_user("queues"), idle_service.add_user("other-queues")
    for name in ("one", "two", "two"):
        user.submit(queue_name=name)
    other.submit(queue_name="one")
    user.cancel(user.submit(queue_name="over"))
    queues = user.get("queues")["queues"]
    assert [(q["queue_name"], q["waiting"], q["running"]) for q in queues] == [("one", 1, 0), ("two", 2, 0)]
    assert all(0 <= queue["oldest_wait_seconds"] < 60 for queue in queues)
    everybodys = {q["queue_name"]: q["waiting"] for q in idle_service.admin.get("queues")["queues"]}
    assert everybodys["one"] == 2


def test_queues_and_workers_show_running_jobs_to_authorized_users(service: Service) -> None:
    user, other = service.add_user("works"), service.add_user("looks-on")
    job = user.wait(user.submit("sleep 60", queue_name="busy"), "running")
    (queue,) = user.get("queues")["queues"]
    assert queue == {"queue_name": "busy", "waiting": 0, "running": 1, "oldest_wait_seconds": None}
    (worker,) = user.get("workers")["workers"]
    assert worker["running_jobs"] == [job["job_id"]]
    assert worker.keys() == {
        "worker_id",
        "host",
        "concurrency",
        "running_jobs",
        "warm_containers",
        "last_seen_at",
        "queues",
        "draining",
        "trouble",
        "version",
    }
    assert job["worker_id"] == worker["worker_id"]
    assert other.get("queues")["queues"] == []
    assert other.get("workers")["workers"][0]["running_jobs"] == []
    user.cancel(job)
