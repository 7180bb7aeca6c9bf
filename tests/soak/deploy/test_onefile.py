"""The one-file executable, as ``make onefile`` makes it."""

import json
import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests

from tests.conftest import ended_cleanly
from tests.soak.deploy.conftest import ROOT, container, run
from tests.soak.deploy.test_image import (
    BY_SOCKET,
    assert_complete,
    client,
    containers_of,
    counting,
    stop,
    url_of,
)
from tests.support.image import Images
from tests.support.runs import over, repository, start, statuses
from tests.support.service import PROGRAM, Service, clean_environment

ONEFILE = ROOT / "dist" / "reactorcide"
WORKFLOW = "name: CI\non: push\njobs: {one: {command: echo one}, two: {needs: one, command: echo two}}\n"
# Rootless, and without Python: what Debian calls essential.
IN_DEBIAN = (
    *("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/data:exec,uid=10001,mode=0700", "--user", "10001:10001"),  # noqa: S108  # in the container
    *("--env", "HOME=/data", "--env", "REACTORCIDE_DATA_DIR=/data/data", "--env", "REACTORCIDE_WARM=0"),
    *("--publish", "127.0.0.1::8080", "--volume", f"{ONEFILE}:/usr/local/bin/reactorcide:ro"),
    *("--entrypoint", "/usr/local/bin/reactorcide"),
)


@pytest.fixture(scope="module", autouse=True)
def onefile() -> Path:
    """The executable of this checkout, made anew unless nothing has changed."""
    made_at = ONEFILE.stat().st_mtime if ONEFILE.exists() else 0
    sources = [ROOT / "setup.cfg", *(ROOT / "reactorcide").rglob("*.*"), *(ROOT / "scripts").rglob("*")]
    if any(path.stat().st_mtime > made_at for path in sources if path.suffix != ".pyc"):
        run(ROOT / "scripts" / "make-onefile")
    return ONEFILE


@pytest.fixture
def service(tmp_path: Path, images: Images, engine: docker.APIClient) -> Iterator[Service]:
    """A service of the executable, as a user starts it on this host."""
    service = Service(tmp_path / "service", images.default, concurrency=2, cancel_grace=1)
    service.program = [str(ONEFILE)]
    yield from ended_cleanly(service.start(), engine)


def test_service_of_one_file_serves_pages_jobs_and_runs(service: Service, tmp_path: Path) -> None:
    # The shell and the loader have become the service: one process and its worker.
    assert len(service.pids()) == 2
    page = requests.get(f"{service.base_url}/", timeout=10)
    assert (page.status_code, "Sign in" in page.text) == (401, True)
    files = re.findall(r'(?:href|src)="(/[^"]*static/[^"]*)"', page.text)
    assert files
    documents = [
        "/api/docs",
        "/api/docs/show.js",
        "/api/docs/swagger-ui.css",
        "/api/docs/swagger-ui-bundle.js",
    ]
    for path in (*files, *documents, "/api/v1/openapi.json", "/api/v1/schemas/workflow.json"):
        answer = requests.get(service.base_url + path, timeout=20)
        assert (answer.status_code, bool(answer.content)) == (200, True), path
    source = repository(service.source_root / "project", {"workflows/build.yaml": WORKFLOW})
    # Workflows are read by a program of its own, the pages of a run show what it did.
    ended = over(service.admin, start(service.admin, source))
    assert statuses(ended) == {"one": "completed", "two": "completed"}, json.dumps(ended)
    service.stop()
    service.start()
    assert service.admin.run("echo again")["status"] == "completed"


def test_commands_of_one_file_use_the_systems_libraries(tmp_path: Path) -> None:
    git = tmp_path / "git"
    git.write_text('#!/bin/sh\necho "git version 2.40 with ${LD_LIBRARY_PATH-nothing}"\n')
    git.chmod(0o755)
    environment = clean_environment(tmp_path) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = json.loads(run(ONEFILE, "doctor", "--json", "--port", "0", env=environment))
    messages = {check["check"]: check["message"] for check in found["checks"]}
    assert "with nothing" in messages["git"]


def test_has_the_parts_of_the_extra(tmp_path: Path) -> None:
    environment = clean_environment(
        tmp_path, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b"
    )
    options = ("--objects", "s3://bucket", "--corndogs-address", "csil://127.0.0.1:9", "--port", "0")
    database = ("--database", "postgresql://user@127.0.0.1:9/name")
    command = [str(ONEFILE), "doctor", "--json", *options, *database]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    messages = {check["check"]: check["message"] for check in json.loads(done.stdout)["checks"]}
    # Each has asked, and nobody listens there.
    assert "Connection refused" in messages["Corndogs"]
    assert "Could not connect" in messages["objects"]
    assert "Connection refused" in messages["database"]


def test_runs_in_a_debian_without_python(debian: str, images: Images, engine: docker.APIClient) -> None:
    with container(*IN_DEBIAN, *BY_SOCKET, debian, "serve", "--host", "0.0.0.0") as name:  # noqa: S104  # published on loopback
        found = subprocess.run(
            ["docker", "exec", name, "reactorcide", "doctor", "--json"], capture_output=True, check=False
        )
        checks = {check["check"]: check["ok"] for check in json.loads(found.stdout)["checks"]}
        # This Debian has no git.
        assert {check for check, ok in checks.items() if not ok} == {"git"}
        assert subprocess.run(["docker", "exec", name, "which", "python3"], check=False).returncode == 1
        token = run("docker", "exec", name, "cat", "/data/data/admin-token").strip()
        with client(url_of(name), token) as api:
            job = counting(api, images)
            assert_complete(api, engine, job)
        stop(name)
        assert containers_of(engine, job) == []


def test_broken_and_foreign_copies_are_refused(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)
    half = tmp_path / "half"
    with ONEFILE.open("rb") as whole, half.open("wb") as part:
        part.write(whole.read(ONEFILE.stat().st_size // 2))
    half.chmod(0o755)
    done = subprocess.run([half, "--version"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "this file has to be complete" in done.stderr
    # Nothing half is left, and the whole file mends it.
    assert list((tmp_path / ".cache" / "reactorcide").iterdir()) == []
    assert "reactorcide, version" in run(ONEFILE, "--version", env=environment)
    (unpacked,) = (tmp_path / ".cache" / "reactorcide").iterdir()
    os.chown(unpacked, 12345, 12345)
    done = subprocess.run(
        [ONEFILE, "--version"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "belongs to another user" in done.stderr) == (1, True)
    shutil.rmtree(unpacked)


def test_starts_at_once_after_the_first_time(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path)

    def seconds(*command: object) -> float:
        began = time.monotonic()
        run(*command, "--version", env=environment)
        return time.monotonic() - began

    first = seconds(ONEFILE)
    later = statistics.median(seconds(ONEFILE) for _ in range(9))
    python = shutil.which("python3", path=f"{ROOT}/.venv/bin")
    checkout = statistics.median(seconds(python, PROGRAM) for _ in range(9))
    print(f"\n--version: first {first:.2f} s, later {later:.2f} s, from the checkout {checkout:.2f} s")
    assert later < checkout + 0.25
