"""Jobs in warm containers: they see nothing of other jobs, and nothing of the time before."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import docker
import pytest

from tests.conftest import NewService, ended_cleanly
from tests.support.client import Job
from tests.support.image import Images
from tests.support.service import PROGRAM, Service, clean_environment
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("warm"), images.default, warm=2, concurrency=1, cancel_grace=1)
    yield from ended_cleanly(service.start(), engine)


def figure(service: Service, name: str) -> int:
    text = service.admin.request("GET", "/metrics").text
    (value,) = re.findall(rf"^{re.escape(name)} (\d+)", text, re.MULTILINE)
    return int(value)


def warm_job(service: Service, command: str, **fields: object) -> Job:
    """Run a job in a warm container."""
    name = 'reactorcide_containers_total{kind="warm"}'
    before = figure(service, name)
    job = service.admin.run(command, **fields)
    assert figure(service, name) == before + 1
    return job


def warmed(service: Service, **fields: object) -> None:
    """Have two containers wait for jobs like this."""
    for _ in range(2):
        service.admin.run("true", **fields)
    service.wait_until_warm(2)


LEAVE = """
for place in / /tmp /job /job/src /job/artifacts /dev/shm /etc /var/tmp /root; do
  mkdir -p $place && echo of-another-job > $place/left
done
echo '203.0.113.7 left' >> /etc/hosts
hostname left || :
httpd -p 7777 -h /tmp
sleep 300 &
echo $LEFT_TOKEN
"""
LOOK = """
find / -xdev -name left; find /dev/shm /job /tmp -name left
grep -c left /etc/hosts || :
[ "$(hostname)" = "$(sed -n 's/^[0-9.]*\\t//p' /etc/hosts | tail -1)" ] && echo its name
grep -l -r seen-by-nobod[y] /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null || :
netstat -an | grep -c 7777 || :
cat /proc/net/tcp | wc -l
cat /proc/[0-9]*/comm
ls -A /job/artifacts /job/src
"""


def test_warm_container_has_nothing_of_other_jobs(service: Service) -> None:
    warmed(service)
    variables = {"LEFT_TOKEN": "seen-by-nobody"}
    assert warm_job(service, LEAVE, job_env_vars=variables)["status"] == "completed"
    # The other of the two; it may be that a third has come by now.
    job = warm_job(service, LOOK)
    expected = ["0", "its name", "0", "1", "docker-init", "sh", "/job/artifacts:", "", "/job/src:"]
    assert service.admin.log(job).decode().splitlines() == expected


def test_waiting_container_has_no_listener(service: Service, engine: docker.APIClient) -> None:
    warmed(service)
    for container in service.warm_containers(engine):
        command = engine.exec_create(
            container["Id"], ["cat", "/proc/net/tcp", "/proc/net/udp", "/proc/net/unix"]
        )
        lines = engine.exec_start(command["Id"]).decode().splitlines()
        # Their headings.
        assert len(lines) == 3, lines


def test_waiting_time_does_not_count_for_the_job(service: Service) -> None:
    warmed(service)
    time.sleep(2)  # what it waited for counts as nothing
    job = warm_job(service, "sleep 1.2; date +%s", timeout_seconds=2)
    assert job["status"] == "completed"
    assert abs(int(service.admin.log(job)) - time.time()) < 10
    assert warm_job(service, "sleep 60", timeout_seconds=1)["error"] == "timed out after 1 s"


@pytest.mark.parametrize("user", ["root", "1000"])
def test_a_source_and_artifacts(service: Service, images: Images, user: str) -> None:
    source = service.source_root / f"of-{user}"
    source.mkdir()
    (source / "given").write_text("given\n")
    fields = {"runner_image": images.default if user == "root" else images.user_1000}
    warmed(service, **fields)
    command = (
        "cat given; stat -c %u . given /job/artifacts; pwd; echo kept > /job/artifacts/kept; echo > more"
    )
    uid = "0" if user == "root" else "1000"
    job = warm_job(service, command, source_path=source.name, **fields)
    assert service.admin.log(job).decode().split() == ["given", uid, uid, uid, "/job/src"]
    assert job["status"] == "completed"
    assert service.admin.artifact_paths(job) == ["kept"]
    service.wait_until_warm(2)
    assert service.admin.artifact_paths(warm_job(service, "true", source_path=source.name, **fields)) == []


def test_job_that_could_change_files_before_the_start_gets_a_new_container(service: Service) -> None:
    source = service.source_root / "linked"
    (source / "real").mkdir(parents=True)
    (source / "link").symlink_to("real")
    warmed(service)
    for fields in ({"job_dir": "/job/src/link"}, {"code_dir": "/etc", "job_dir": "/etc"}):
        before = figure(service, 'reactorcide_containers_total{kind="new"}')
        job = service.admin.run("pwd -P; ls -d /etc/real || :", source_path="linked", **fields)
        assert job["status"] == "completed", job
        assert figure(service, 'reactorcide_containers_total{kind="new"}') == before + 1


def test_doctor_counts_warm_containers(service: Service) -> None:
    warmed(service)
    answer = subprocess.run(
        [sys.executable, str(PROGRAM), "doctor", "--json", "--port", "0"],
        env=clean_environment(service.home),
        capture_output=True,
        text=True,
        check=True,
    )
    (message,) = (
        item["message"] for item in json.loads(answer.stdout)["checks"] if item["check"] == "Docker"
    )
    # Other services may have some, too.
    assert int(message.rpartition("warm containers: ")[2]) >= 2


def test_burst_of_jobs_uses_warm_containers_then_new_ones(service: Service, engine: docker.APIClient) -> None:
    warmed(service)
    assert figure(service, "reactorcide_warm_containers") == 2
    jobs = [service.admin.submit("echo $REACTORCIDE_JOB_ID") for _ in range(5)]
    for job in jobs:
        assert service.admin.wait(job)["status"] == "completed"
        assert service.admin.log(job).decode() == f"{job['job_id']}\n"
    service.wait_until_warm(2)
    assert len(service.warm_containers(engine)) == 2


@pytest.mark.parametrize("end", [Service.stop, Service.kill])
def test_warm_containers_end_soon_after_their_service(
    new_service: NewService, engine: docker.APIClient, end: Callable[[Service], None]
) -> None:
    service = new_service(warm=1)
    service.admin.run("true")
    service.wait_until_warm(1)
    (old,) = service.warm_containers(engine)
    end(service)
    if end is Service.stop:
        wait_until(lambda: not service.warm_containers(engine), 30, "none is left")
    service.start()
    wait_until(lambda: not service.warm_containers(engine), 20, "the first sweep has removed it")
    # The next job gets none of those of before.
    assert service.admin.run("true")["status"] == "completed"
    service.wait_until_warm(1)
    assert [item["Id"] for item in service.warm_containers(engine)] != [old["Id"]]
    service.stop()
