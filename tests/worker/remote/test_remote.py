"""A worker on another machine: the same jobs, over HTTP alone."""

import re
import time
import uuid
from pathlib import Path

import docker

from tests.sources.support import Project, git_http
from tests.support.client import Client, Job
from tests.support.image import Images
from tests.support.remote import RemoteWorker
from tests.support.runs import over, repository, start
from tests.support.service import Service
from tests.support.sshd import sshd
from tests.support.tars import member, tar_gz
from tests.support.waiting import wait_until

UNTIL_RELEASED = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo done"


def begun(api: Client, after: str = "true", **fields: object) -> Job:
    """Return a job whose command runs until ``release``, and then ``after``."""
    job = api.submit(f"{UNTIL_RELEASED}; {after}", **fields)
    wait_until(lambda: api.log(job).endswith(b"begun\n"), 30, "the command runs")
    return job


def release(engine: docker.APIClient, worker: RemoteWorker) -> None:
    """Have the command of ``begun`` end."""
    for container in worker.containers(engine):
        touch = engine.exec_create(container["Id"], ["touch", "/tmp/go"])  # noqa: S108  # in the container
        engine.exec_start(touch["Id"])


def test_a_job_runs_on_the_worker(hub: Service, remote: RemoteWorker) -> None:
    job = hub.admin.run("echo out; echo err >&2; exit 3")
    assert (job["status"], job["exit_code"], job["worker_id"]) == ("failed", 3, remote.worker_id)
    assert hub.admin.log(job, stream="stdout") == b"out\n"
    assert hub.admin.log(job, stream="stderr") == b"err\n"


def test_a_job_has_its_uploaded_source(hub: Service, remote: RemoteWorker) -> None:
    packed = tar_gz(member("hello.txt", b"from the source\n"))
    headers = {"Content-Type": "application/gzip"}
    source = hub.admin.request("POST", "sources", data=packed, headers=headers).json()
    job = hub.admin.run("cat hello.txt", source_id=source["source_id"])
    assert (job["status"], hub.admin.log(job)) == ("completed", b"from the source\n")


def test_artifacts_reports_and_masked_secrets_arrive(hub: Service, remote: RemoteWorker) -> None:
    secret = uuid.uuid4().hex
    job = hub.admin.run(
        "mkdir -p a/b && cd a/b && echo $TOKEN && head -c 3000000 /dev/zero > /job/artifacts/large && "
        "echo '<testsuite><testcase name=\"x\"/></testsuite>' > '/job/artifacts/r s.xml' && "
        "echo '# Sum' > /job/artifacts/summary.md && ln /job/artifacts/large /job/artifacts/same",
        job_env_vars={"TOKEN": secret},
    )
    assert job["status"] == "completed", hub.admin.log(job)
    assert hub.admin.log(job) == b"[REDACTED]\n"
    paths = ["large", "r s.xml", "same", "summary.md"]
    assert hub.admin.artifact_paths(job) == paths
    response = hub.admin.request("GET", f"jobs/{job['job_id']}/artifacts/same")
    assert response.content == bytes(3_000_000)
    assert hub.admin.get(f"jobs/{job['job_id']}/tests")["passed"] == 1


def test_a_busy_log_takes_few_requests(hub: Service, remote: RemoteWorker) -> None:
    began_at = time.monotonic()
    job = hub.admin.run("i=0; while [ $i -lt 400 ]; do echo $i; usleep 4000; i=$((i+1)); done")
    took_s = time.monotonic() - began_at
    assert hub.admin.log(job).decode().split() == [str(number) for number in range(400)]
    pieces = hub.log_text().count(f"/attempts/{job['job_id']}/1/log 200 ")
    assert 2 < pieces <= 20 * took_s + 2


def test_a_log_is_followed_within_a_second(
    hub: Service, remote: RemoteWorker, engine: docker.APIClient
) -> None:
    job = hub.admin.submit("i=0; while [ $i -lt 5 ]; do date +%s.%N; i=$((i+1)); sleep 0.5; done")
    with hub.admin.follow(job) as lines:
        for line in lines:
            # busybox has no fractions.
            assert time.time() - float(re.sub(rb"[.N%].*", b"", line)) < 2.5
    assert hub.admin.wait(job)["status"] == "completed"


def test_a_cancelled_job_ends_soon(hub: Service, remote: RemoteWorker, engine: docker.APIClient) -> None:
    job = begun(hub.admin)
    hub.admin.cancel(job)
    wait_until(lambda: not remote.containers(engine), 10, "its container is removed")
    attempt = hub.admin.get(f"jobs/{job['job_id']}/attempts")["attempts"][0]
    assert (attempt["completed_at"] is not None, attempt["error"]) == (True, "cancelled")


def test_timeout_and_retries(hub: Service, remote: RemoteWorker) -> None:
    job = hub.admin.run("echo $REACTORCIDE_ATTEMPT; sleep 60", timeout_seconds=3, retries=1)
    assert (job["status"], job["attempt"]) == ("failed", 2)
    assert job["error"] == "timed out after 3 s"
    assert hub.admin.log(job, attempt=1).startswith(b"1\n")
    assert hub.admin.log(job, attempt=2).startswith(b"2\n")


def test_jobs_of_a_run_get_outputs_artifacts_caches_and_git(hub: Service, remote: RemoteWorker) -> None:
    text = """
name: CI
on: push
jobs:
  build:
    command: |
      cat data.txt
      echo made > /job/artifacts/made
      echo version=7 >> $REACTORCIDE_OUTPUT
      mkdir -p cached; test -e cached/x && echo restored; echo x > cached/x
    cache: [{key: [k, 'file:data.txt'], paths: [cached]}]
  use:
    needs: [build]
    artifacts_from: [build]
    command: cat /job/needs/build/made $RC_WF_VARS_FILE
"""
    source = repository(hub.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    source.commit("data.txt", "from git\n")
    for is_cached in (False, True):
        run = over(hub.admin, start(hub.admin, source))
        jobs = {node["name"]: hub.admin.get(f"jobs/{node['job_id']}") for node in run["nodes"]}
        logs = {name: hub.admin.log(job) for name, job in jobs.items()}
        assert run["status"] == "completed", logs
        assert b"from git\n" in logs["build"]
        assert (b"\nrestored\n" in logs["build"]) == is_cached, logs["build"]
        assert b'made\n{"build.version": "7"}' in logs["use"], logs["use"]


def test_a_private_repository_is_cloned_with_the_projects_token(
    hub: Service, remote: RemoteWorker, tmp_path: Path
) -> None:
    inner, outer = Project(tmp_path / "inner"), Project(tmp_path / "outer")
    outer.submodule("lib", "../inner", inner.first)
    (outer.path / ".reactorcide" / "workflows").mkdir(parents=True)
    text = "name: CI\non: push\njobs: {show: {command: cat lib/file .git/config}}\n"
    outer.commit(".reactorcide/workflows/ci.yaml", text)
    token = f"forge-token-{uuid.uuid4().hex}"
    with git_http(tmp_path, login=f"x-access-token:{token}") as server:
        body = {"name": f"acme/{uuid.uuid4().hex}", "git_url": f"{server.url}/outer", "token": token}
        assert hub.admin.request("POST", "projects", json=body).status_code == 201
        start = {"project": body["name"], "event": {"name": "push"}}
        run = over(hub.admin, hub.admin.request("POST", "runs", json=start).json())
    job = hub.admin.get(f"jobs/{run['nodes'][0]['job_id']}")
    log = hub.admin.log(job).decode()
    assert (run["status"], job["worker_id"]) == ("completed", remote.worker_id), log
    assert token not in log
    for path in (*remote.data_dir.rglob("*"), remote.log_path):
        assert not path.is_file() or token not in path.read_text(errors="replace"), path


def test_a_private_repository_is_cloned_with_the_projects_deploy_key(
    hub: Service, remote: RemoteWorker, tmp_path: Path
) -> None:
    outer = Project(tmp_path / "outer")
    (outer.path / ".reactorcide" / "workflows").mkdir(parents=True)
    text = "name: CI\non: push\njobs: {show: {command: cat file}}\n"
    outer.commit(".reactorcide/workflows/ci.yaml", text)
    with sshd(tmp_path / "sshd") as server:
        body = {"name": f"acme/{uuid.uuid4().hex}", "git_url": server.url(outer.path)}
        project = hub.admin.request("POST", "projects", json=body).json()
        key = hub.admin.request("POST", f"projects/{project['project_id']}/deploy-key")
        server.let_in(key.json()["public_key"])
        start = {"project": body["name"], "event": {"name": "push"}}
        run = over(hub.admin, hub.admin.request("POST", "runs", json=start).json())
    assert run["status"] == "completed", run
    job = hub.admin.get(f"jobs/{run['nodes'][0]['job_id']}")
    assert job["worker_id"] == remote.worker_id
    for path in (*remote.data_dir.rglob("*"), remote.log_path):
        assert not path.is_file() or "PRIVATE KEY" not in path.read_text(errors="replace"), path


def test_the_log_of_a_service_arrives(hub: Service, remote: RemoteWorker, images: Images) -> None:
    command = "sh -c 'echo I am up; touch /tmp/up; sleep 60'"
    service = {"image": images.default, "command": command, "ready": "test -e /tmp/up"}
    job = hub.admin.run("echo done", services={"db": service})
    assert job["status"] == "completed", hub.admin.log(job)
    assert hub.admin.log(job, service="db") == b"I am up\n"
    wait_until(lambda: not list((remote.data_dir / "attempts").iterdir()), 10, "its files are removed")
    assert list((remote.data_dir / "logs").iterdir()) == []
