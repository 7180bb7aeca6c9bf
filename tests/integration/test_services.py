"""Services of a job, on the real engine."""

import sqlite3
import time
from contextlib import closing
from typing import Any

import docker
import pytest

from reactorcide import crashpoints
from tests.chaos.test_crash_points import assert_nothing_remains
from tests.conftest import NewService
from tests.support.client import Client, Job
from tests.support.image import Images
from tests.support.service import Service
from tests.support.waiting import wait_until

SECRET = "tok-5f3a9c-of-a-service"
WEB = "mkdir /www && echo hello >/www/index.html && echo serving && exec httpd -f -p 8080 -h /www"


def sh(script: str) -> str:
    """Return a service's command that runs a script."""
    return f"sh -c '{script}'"


@pytest.fixture
def image(images: Images) -> str:
    return images.default


def web(image: str, **fields: Any) -> dict[str, Any]:
    """A web server, which needs a moment until it is ready."""
    return {
        "image": image,
        "command": sh("sleep 0.5; " + WEB),
        "ready": "wget -q -O /dev/null http://localhost:8080/",
    } | fields


def service_log(api: Client, job: Job, name: str) -> str:
    response = api.request("GET", f"jobs/{job['job_id']}/logs", params={"service": name})
    assert response.status_code == 200, response.text
    return response.text


def containers(engine: docker.APIClient, job: Job) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = engine.containers(
        all=True, filters={"label": f"reactorcide.job={job['job_id']}"}
    )
    return listed


def assert_containers_removed(engine: docker.APIClient, job: Job) -> None:
    wait_until(lambda: not containers(engine, job), 30, "the containers are gone")


def test_job_reaches_ready_services_by_name(api: Client, engine: docker.APIClient, image: str) -> None:
    other = {"image": image, "command": sh("while :; do echo pong | nc -l -p 9; done")}
    job = api.run(
        "wget -q -O - http://web:8080/; nc other 9 </dev/null", services={"web": web(image), "other": other}
    )
    assert (job["status"], job["error"]) == ("completed", None), api.log(job)
    assert api.log(job) == b"hello\npong\n"
    assert service_log(api, job, "web") == "serving\n"
    assert service_log(api, job, "other") == ""
    assert_containers_removed(engine, job)
    for query in ({"service": "none"}, {"service": "web", "attempt": 2}):
        assert api.request("GET", f"jobs/{job['job_id']}/logs", params=query).status_code == 404
    for query in ({"service": "web", "tail": 1}, {"service": "web", "follow": "true"}, {"service": "../x"}):
        assert api.request("GET", f"jobs/{job['job_id']}/logs", params=query).status_code == 400


@pytest.mark.parametrize("network", ["isolated", "none"])
def test_services_work_on_every_network_setting(new_service: NewService, image: str, network: str) -> None:
    api = new_service(job_network=network).admin
    job = api.run("wget -q -O - http://web:8080/", services={"web": web(image)})
    assert (job["status"], api.log(job)) == ("completed", b"hello\n")


def test_service_that_is_never_ready_fails_the_job(api: Client, engine: docker.APIClient, image: str) -> None:
    service = {
        "image": image,
        "command": sh("echo starting; sleep 600"),
        "ready": "false",
        "ready_timeout": 1,
    }
    job = api.run("echo never", services={"db": service}, retries=1)
    assert job["status"] == "failed"
    assert job["error"] == "service db was not ready after 1 s; its log ends: starting"
    assert job["attempt"] == 1
    assert "never" not in api.log(job).decode().splitlines()
    assert "[reactorcide]   starting" in api.log(job).decode().splitlines()
    assert service_log(api, job, "db") == "starting\n"
    assert_containers_removed(engine, job)


def test_hanging_health_check_fails_the_job(api: Client, image: str) -> None:
    service = {"image": image, "command": "sleep 600", "ready": "sleep 600", "ready_timeout": 1}
    assert api.run("true", services={"db": service})["error"] == "service db was not ready after 1 s"


def test_health_check_of_the_image_is_used(api: Client, engine: docker.APIClient, image: str) -> None:
    created = engine.create_container(image, command=["true"])
    try:
        engine.commit(
            created,
            repository="reactorcide-test",
            tag="healthcheck",
            changes=[
                "HEALTHCHECK --interval=60s CMD test -f /tmp/ready",
                'CMD ["sh", "-c", "sleep 1; touch /tmp/ready; sleep 600"]',
            ],
        )
    finally:
        engine.remove_container(created, force=True)
    began_at = time.monotonic()
    job = api.run("true", services={"db": {"image": "reactorcide-test:healthcheck"}})
    assert job["status"] == "completed", job["error"]
    assert 1 < time.monotonic() - began_at < 20


def test_service_that_ends_is_reported(api: Client, engine: docker.APIClient, image: str) -> None:
    early = {"image": image, "command": sh("echo broken; exit 3"), "ready": "false"}
    job = api.run("true", services={"db": early})
    assert job["error"] == "service db exited 3; its log ends: broken"
    late = {"image": image, "command": sh("echo up; sleep 1; exit 1")}
    job = api.run("sleep 600", services={"db": late})
    assert (job["status"], job["error"]) == ("failed", "service db exited 1")
    assert service_log(api, job, "db") == "up\n"
    # A command that fails because of it, before the worker has noticed its end.
    short_lived = {"image": image, "command": sh("nc -l -p 7 </dev/null; exit 4")}
    job = api.run("sleep 0.2; nc db 7 </dev/null; sleep 0.1; exit 9", services={"db": short_lived})
    assert "service db exited 4" in job["error"]
    assert_containers_removed(engine, job)


def test_two_services_on_one_port_are_reported(api: Client, image: str) -> None:
    services = {
        "first": {"image": image, "command": "nc -l -p 80", "ready": "netstat -ltn | grep -q :80"},
        "second": {"image": image, "command": sh("sleep 1; exec nc -l -p 80"), "ready": "false"},
    }
    error = api.run("true", services=services)["error"]
    assert error.startswith("service second exited 1: its port is taken by service first"), error


def test_secrets_of_services_are_masked_and_sealed(service: Service, image: str) -> None:
    api = service.admin
    db = {
        "image": image,
        "environment": {"DB_PASSWORD": SECRET, "SHOWN": "shown"},
        "command": sh("echo with $DB_PASSWORD $SHOWN; sleep 600"),
        "ready": "test $DB_PASSWORD = " + SECRET[:3] + "*" + " || true",
    }
    job = api.run(f"echo {SECRET[:4]}''{SECRET[4:]}", services={"db": db})
    assert job["services"]["db"]["environment"] == {"DB_PASSWORD": "[REDACTED]", "SHOWN": "shown"}
    assert job["secret_env_vars"] == ["DB_PASSWORD"]
    assert service_log(api, job, "db") == "with [REDACTED] shown\n"
    assert api.log(job) == b"[REDACTED]\n"
    with closing(sqlite3.connect(service.data_dir / "reactorcide.db")) as database:
        (stored,) = database.execute("SELECT services FROM job WHERE job_id = ?", (job["job_id"],)).fetchone()
    assert SECRET not in stored
    again = api.wait(api.request("POST", f"jobs/{job['job_id']}/rerun").json())
    assert service_log(api, again, "db") == "with [REDACTED] shown\n"
    refused = api.post_job(services={"db": {"image": image, "environment": {"DB_PASSWORD": "[REDACTED]"}}})
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (400, "services")


@pytest.mark.parametrize(
    ("services", "problem"),
    [
        ({"DB": {"image": "x"}}, "'DB' is not a host name"),
        ({"localhost": {"image": "x"}}, "'localhost' is not a host name"),
        ({"db": {}}, "the image of db is not an image reference"),
        ({"db": {"image": "x", "port": 1}}, "'port' is not a key of a service"),
        ({"db": {"image": "x", "command": "sh -c 'x"}}, "cannot be split into words"),
        ({"db": {"image": "x", "command": " "}}, "the command of db is empty"),
        ({"db": {"image": "x", "ready_timeout": 0}}, "ready_timeout of db is not 1 to 3600 seconds"),
        ({"db": {"image": "x", "ready_timeout": True}}, "ready_timeout of db is not 1 to 3600 seconds"),
        ({"db": {"image": "x", "environment": {"A=": ""}}}, "'A=' of db is not a variable name"),
        (
            {"db": {"image": "x", "environment": {f"A{n}": "x" * (32 << 10) for n in range(32)}}},
            "the variables of db together are 1 MiB or more",
        ),
        ({f"s{n}": {"image": "x"} for n in range(11)}, "more than 10"),
    ],
)
def test_invalid_services_are_refused(idle: Client, services: Any, problem: str) -> None:
    refused = idle.post_job(services=services)
    assert refused.status_code == 400
    assert problem in refused.json()["message"]
    assert refused.json()["details"][0]["field"] == "services"


def test_image_rules_apply_to_services(new_service: NewService, image: str) -> None:
    api = new_service(allow_image=image).admin
    refused = api.post_job(services={"db": {"image": "postgres:17"}})
    assert refused.status_code == 400
    assert (
        "services: the image of db, docker.io/library/postgres:17 is none of those"
        in refused.json()["message"]
    )


def test_limits_apply_to_services(new_service: NewService, engine: docker.APIClient, image: str) -> None:
    api = new_service(pids_limit=50, max_disk="30m").admin
    job = api.submit(
        "sleep 600", memory_limit="64m", services={"db": {"image": image, "command": "sleep 600"}}
    )
    api.wait(job, "running")
    wait_until(
        lambda: len([c for c in containers(engine, job) if c["State"] == "running"]) == 2, 20, "both run"
    )
    (db,) = [item for item in containers(engine, job) if "reactorcide.service" in item["Labels"]]
    limits = engine.inspect_container(db["Id"])["HostConfig"]
    assert (limits["PidsLimit"], limits["Memory"], limits["MemorySwap"]) == (50, 64 << 20, 64 << 20)
    assert (limits["CapDrop"], limits["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    api.cancel(job)
    assert_containers_removed(engine, job)
    filler = {"image": image, "command": sh("head -c 20000000 /dev/zero >/tmp/x; sleep 600")}
    job = api.run("head -c 20000000 /dev/zero >/tmp/x; sleep 600", services={"db": filler})
    assert "used more than 30 MiB of disk" in job["error"]
    assert_containers_removed(engine, job)


COMMAND = "wget -q -O - http://web:8080/; sleep 1; wget -q -O - http://web:8080/"


@pytest.mark.parametrize(
    ("point", "attempt"),
    [
        ("service-created", 2),
        ("container-started", 2),
        ("services-ready", 2),
        ("handing-over-written", 2),
        ("handover-acknowledged", 1),
        ("start-written", 1),
        ("command-ended", 1),
        ("finish-written", 1),
    ],
)
def test_job_with_a_service_survives_a_kill_at_each_crash_point(
    new_service: NewService, engine: docker.APIClient, image: str, tmp_path: Any, point: str, attempt: int
) -> None:
    marker = tmp_path / "armed"
    service = new_service({crashpoints.VARIABLE: f"{point}={marker}"}, lease=3, cancel_grace=1)
    marker.touch()
    job = service.admin.submit(COMMAND, services={"web": web(image)})
    wait_until(lambda: not marker.exists(), 30, "the service dies at the point")
    service.kill()
    service.start()
    ended = service.admin.wait(job)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("completed", None, attempt)
    assert service.admin.log(ended) == b"hello\nhello\n"
    assert service_log(service.admin, ended, "web") == "serving\n"
    assert_nothing_remains(service, engine)


def test_an_adopted_job_is_ended_with_its_service(
    new_service: NewService, engine: docker.APIClient, image: str
) -> None:
    service = new_service(lease=3, cancel_grace=1)
    job = service.admin.submit("echo begun; sleep 600", services={"web": web(image)})
    wait_until(lambda: b"begun" in service.admin.log(job), 30, "it has begun")
    service.kill()
    service.start()
    (web_container,) = [item for item in containers(engine, job) if "reactorcide.service" in item["Labels"]]
    engine.kill(web_container["Id"])
    ended = service.admin.wait(job)
    assert (ended["status"], ended["error"]) == ("failed", "service web exited 137")
    assert_nothing_remains(service, engine)
