"""What the jobs of a workflow have beside them, and get of each other, on the real engine."""

import uuid
from collections.abc import Callable

import pytest

from tests.sources.support import Repository
from tests.support.client import Client
from tests.support.image import Images
from tests.support.runs import Run, node, over, repository, start, statuses
from tests.support.service import Service

NewRun = Callable[[str], Run]


@pytest.fixture
def run(api: Client, service: Service, images: Images) -> NewRun:
    """Run jobs to their end: a function of the text of a workflow's ``jobs``; IMAGE in it is the image."""

    def run_jobs(text: str) -> Run:
        head = "name: CI\non: push\nvars: {word: hello}\njobs:\n"
        files = {"workflows/ci.yaml": head + text.replace("IMAGE", images.default)}
        source: Repository = repository(service.source_root / uuid.uuid4().hex, files)
        return over(api, start(api, source, event={"name": "push"}))

    return run_jobs


def log_of(api: Client, ended: Run, name: str) -> str:
    return api.log({"job_id": node(ended, name)["job_id"]}).decode()


def error_of(api: Client, ended: Run, name: str) -> str:
    return str(api.job({"job_id": node(ended, name)["job_id"]})["error"])


SERVICES = """
  ask:
    matrix: {port: [8080, 8081]}
    services:
      web:
        image: IMAGE
        env: {WORD: "${vars.word}", PORT: "${matrix.port}", PASSWORD: "pa55-${event.name}"}
        command: >-
          sh -c 'mkdir /www; echo "$WORD $PASSWORD" >/www/x; echo "for $PASSWORD";
          sleep 0.5; exec httpd -f -p $PORT -h /www'
        ready: wget -q -O - http://localhost:$PORT/x
        ready_timeout: 20s
    env: {PORT: "${matrix.port}"}
    command: wget -q -O - http://web:$PORT/x
"""


def test_a_job_has_its_services(api: Client, run: NewRun) -> None:
    ended = run(SERVICES)
    assert ended["status"] == "completed", ended
    for name in ("ask (8080)", "ask (8081)"):
        # What a variable of the service has is secret for the log of the job, too.
        assert "hello [REDACTED]\n" in log_of(api, ended, name)
        job = api.job({"job_id": node(ended, name)["job_id"]})
        assert job["services"]["web"]["environment"]["PASSWORD"] == "[REDACTED]"
        response = api.request("GET", f"jobs/{job['job_id']}/logs", params={"service": "web"})
        assert response.text == "for [REDACTED]\n"


def test_a_service_that_is_not_ready_fails_the_node(api: Client, run: NewRun) -> None:
    ended = run("""
  ask: {services: {db: {image: IMAGE, command: sleep 60, ready: "false", ready_timeout: 1}}, command: "true"}
  after: {needs: [ask], command: "true"}
""")
    assert statuses(ended) == {"ask": "failed", "after": "skipped"}
    assert error_of(api, ended, "ask") == "service db was not ready after 1 s"
