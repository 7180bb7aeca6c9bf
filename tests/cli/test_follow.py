"""``reactorcide jobs logs``, its parts, and how it survives a restart of the service."""

import re
import subprocess
from pathlib import Path

import docker
import pytest

from tests.cli.conftest import Program
from tests.conftest import NewService
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.mark.parametrize("over", ["socket", "port"])
@pytest.mark.parametrize(
    ("options", "first"), [(("--tail", "2"), 8), (("--stream", "stdout"), 0)], ids=["tail", "stream"]
)
def test_following_survives_a_restart_of_the_service(
    new_service: NewService,
    engine: docker.APIClient,
    tmp_path: Path,
    options: tuple[str, ...],
    first: int,
    over: str,
) -> None:
    service = new_service(port=free_port())
    job = service.admin.submit(
        "seq 0 9; while [ ! -e /tmp/go ]; do sleep 0.05; done; seq 10 15; exit 3", timeout_seconds=60
    )
    wait_until(lambda: service.admin.log(job).endswith(b"9\n"), 20, "the first lines are printed")
    variables = {"REACTORCIDE_API_URL": service.base_url, "REACTORCIDE_API_TOKEN": str(service.admin.token)}
    if over == "socket":
        variables = {"REACTORCIDE_DATA_DIR": str(service.data_dir)}
    program = Program(tmp_path, variables)
    output = tmp_path / "followed"
    with output.open("wb") as file:
        follower = program.start(
            "jobs", "logs", "-f", *options, job["job_id"], stdout=file, stderr=subprocess.PIPE
        )
    try:
        wait_until(lambda: output.read_bytes().endswith(b"9\n"), 20, "it follows")
        service.kill()
        service.start()
        service.admin.wait(job, "running")
        [container] = service.containers(engine, job)
        engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108  # in a container
        assert follower.wait(30) == 0
    finally:
        follower.kill()
        follower.communicate()
    note = b"" if "--stream" in options else b"[reactorcide] exit code 3\n"
    assert output.read_bytes() == b"".join(b"%d\n" % i for i in range(first, 16)) + note


def test_parts_of_a_log_are_printed(
    new_service: NewService, tmp_path: Path, engine: docker.APIClient
) -> None:
    service = new_service()
    # The second stream has something to say when the first is through.
    job = service.admin.submit("seq 20; until [ -e /tmp/go ]; do sleep 0.02; done; echo oops >&2")
    wait_until(lambda: service.admin.log(job).endswith(b"20\n"), 20, "all of it is in the log")
    [container] = service.containers(engine, job)
    engine.exec_start(engine.exec_create(container["Id"], ["touch", "/tmp/go"])["Id"])  # noqa: S108
    service.admin.wait(job)
    program = Program(
        tmp_path,
        {"REACTORCIDE_API_URL": service.base_url, "REACTORCIDE_API_TOKEN": str(service.admin.token)},
    )
    show = ("jobs", "logs", job["job_id"])
    assert program.fine(*show, "--from-line", 3, "--lines", 2).output == b"3\n4\n"
    assert program.fine(*show, "--stream", "stderr").output == b"oops\n"
    stamped = program.fine(*show, "--timestamps", "--tail", 1).text
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z oops", stamped)
    assert program.fine(*show, "-f", "--timestamps", "--tail", 1).text == stamped
    assert program(*show, "--lines", 2, "--tail", 1).code == 2
