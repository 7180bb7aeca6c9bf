"""Two services on one database, one bucket and one queue, each in front of the same jobs."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import docker
import requests

from tests.integration.test_deliveries import CI, add_project, deliveries
from tests.support.forge import running_forge
from tests.support.http_server import answer_with, serving
from tests.support.runs import over
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
        # Another test has a worker on another machine.
        embedded = [item for item in workers if item["worker_id"].startswith("embedded-")]
        return sorted((item["concurrency"], item["worker_id"]) for item in embedded)

    wait_until(lambda: len(listed(pair[0])) == 2, 10, "the first one has heard of the second")
    assert listed(pair[0]) == listed(pair[1])
    assert [concurrency for concurrency, _ in listed(pair[0])] == [0, 2]


def test_a_page_and_a_token_are_known_to_both_and_so_are_guesses(pair: Pair) -> None:
    first, second = pair
    session = requests.Session()
    form = {"token": first.admin.token}
    opened = session.post(f"{second.base_url}/sign-in", data=form, allow_redirects=False, timeout=20)
    assert opened.status_code == 303, opened.text
    value = session.cookies["reactorcide_session"]
    cookies = {"reactorcide_session": value}
    assert requests.get(f"{first.base_url}/api/v1/users/me", cookies=cookies, timeout=20).status_code == 200
    guesser = [service.client("a-guess-of-somebody") for service in pair]
    answers = [guesser[n % 2].request("GET", "jobs").status_code for n in range(42)]
    assert (answers.count(401), answers[40:]) == (40, [429, 429])


def test_a_push_told_to_both_starts_one_run_and_tells_of_it_once(pair: Pair, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    def receive(request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        told.append((request.headers["webhook-id"], body["type"]))
        answer_with(200)(request)

    admin = pair[0].admin
    with running_forge(tmp_path / "forge", "github") as forge, serving(receive) as port:
        repository = forge.repository("acme/site", {"workflows/ci.yaml": CI})
        project = add_project(pair[0], forge, repository)
        body = {
            "url": f"http://127.0.0.1:{port}/hook",
            "events": ["run"],
            "projects": [project["name"]],
        }
        assert admin.request("POST", "webhooks", json=body).status_code == 201
        shas = []
        for number in range(2):
            shas.append(repository.commit("src", str(number)))
            [answer] = repository.deliver(repository.push())
            sent = answer.request
            url = str(sent.url).replace(pair[0].base_url, pair[1].base_url)
            again = requests.post(url, data=sent.body, headers=sent.headers, timeout=20)
            assert {answer.status_code, again.status_code} <= {200, 202}, again.text
        assert [item["status"] for item in deliveries(admin, project)] == ["started"] * 2
        runs = admin.get("runs", project=project["name"])["runs"]
        assert [run["sha"] for run in reversed(runs)] == shas
        for run in runs:
            assert over(admin, run)["status"] == "completed"
        wait_until(lambda: len(told) >= 4, 30, "the begin and the end of each is told")
    assert len(told) == len(set(told)) == 4, told
