"""Two services on one database, one bucket and one queue, each in front of the same jobs."""

import docker

from tests.support.service import Service
from tests.support.waiting import wait_until

Pair = tuple[Service, Service]

UNTIL_RELEASED = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done"


def test_what_one_accepts_is_seen_through_the_other(pair: Pair) -> None:
    first, second = (service.admin for service in pair)
    job = second.submit("echo $((6 * 7)); echo kept > /job/artifacts/a")
    with second.follow(job) as lines:
        assert list(lines) == [b"42"]
    ended = second.wait(job)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert first.job(job) == ended
    assert [api.artifact_paths(job) for api in (first, second)] == [["a"], ["a"]]
    kept = second.request("GET", f"jobs/{job['job_id']}/artifacts/a")
    assert kept.content == b"kept\n"


def test_a_growing_log_and_a_cancel_pass_from_one_to_the_other(pair: Pair, engine: docker.APIClient) -> None:
    first, second = pair
    job = first.admin.submit(UNTIL_RELEASED)
    with second.admin.follow(job) as lines:
        assert next(lines) == b"begun"
        second.admin.cancel(job)
        # Its own worker looks by itself every 200 seconds.
        wait_until(lambda: not first.containers(engine, job), 20, "its container is gone")
        assert list(lines)[-1] == b"[reactorcide] cancelled"
    assert first.admin.job(job)["status"] == "cancelled"


def test_both_list_the_workers_of_both(pair: Pair) -> None:
    def listed(service: Service) -> list[tuple[int, str]]:
        workers = service.admin.get("workers")["workers"]
        return sorted((item["concurrency"], item["worker_id"]) for item in workers)

    wait_until(lambda: len(listed(pair[0])) == 2, 10, "the first one has heard of the second")
    assert listed(pair[0]) == listed(pair[1])
    assert [concurrency for concurrency, _ in listed(pair[0])] == [0, 2]
