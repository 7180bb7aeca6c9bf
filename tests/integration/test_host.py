"""Protection from other users of the service's host: its port, its log, its source roots."""

import os
import pty
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import requests

from tests.cli.conftest import Program
from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import is_readable


def local(service: Service, **variables: str) -> Program:
    """Return the command line of the service's own user."""
    return Program(service.home, {"REACTORCIDE_DATA_DIR": str(service.data_dir), **variables})


# --- the socket ---------------------------------------------------------------------------------


def test_socket_is_recreated_after_sigkill(new_service: NewService) -> None:
    service = new_service(concurrency=0)
    command = local(service)
    command.fine("submit", "first", "--", "true")
    service.kill()
    assert (service.data_dir / "api.sock").is_socket()
    assert f"no service runs in {service.data_dir}" in command.refused("jobs", "list")
    service.start()
    assert "first" in command.fine("jobs", "list").text
    service.stop()
    assert not (service.data_dir / "api.sock").exists()


def test_second_service_does_not_replace_the_socket(new_service: NewService) -> None:
    service = new_service(concurrency=0)
    inode = (service.data_dir / "api.sock").stat().st_ino
    refused = local(service).refused("serve", "--port", 0)
    assert "another reactorcide" in refused
    assert (service.data_dir / "api.sock").stat().st_ino == inode
    local(service).fine("jobs", "list")


def test_data_directory_with_a_long_path_works(new_service: NewService, tmp_path: Path) -> None:
    service = new_service(data_dir=tmp_path / ("d" * 100) / ("e" * 100))
    assert local(service).fine("submit", "far", "--follow", "--", "echo down here").output == b"down here\n"
    service.stop()
    assert not (service.data_dir / "api.sock").exists()


def test_service_without_a_socket_starts_with_a_warning(new_service: NewService, tmp_path: Path) -> None:
    (tmp_path / "data" / "api.sock").mkdir(parents=True)
    service = new_service(data_dir=tmp_path / "data", concurrency=0)
    assert f"no socket {service.data_dir}/api.sock for the command line" in service.log_text()
    message = local(service).refused("jobs", "list")
    assert "set REACTORCIDE_API_URL" in message
    named = local(
        service, REACTORCIDE_API_URL=service.base_url, REACTORCIDE_API_TOKEN=service.admin.token or ""
    )
    named.fine("jobs", "list")
    assert (service.data_dir / "api.sock").is_dir()


def test_removed_admin_token_file_is_not_an_error(new_service: NewService) -> None:
    service = new_service(concurrency=0)
    command = local(service)
    (service.data_dir / "admin-token").unlink()
    assert "admin-token with a token" in command.refused("jobs", "list")
    token = command.fine("token", "create").text.split()[-1]
    command.with_variables(REACTORCIDE_API_TOKEN=token).fine("jobs", "list")


def test_service_stops_although_its_socket_was_removed(new_service: NewService) -> None:
    service = new_service(concurrency=0)
    (service.data_dir / "api.sock").unlink()
    assert "does not answer on api.sock" in local(service).refused("jobs", "list")
    service.stop()


def raw(service: Service, request: bytes) -> bytes:
    """Send a request over the socket, and return all of the answer."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(20)
        connection.connect(str(service.data_dir / "api.sock"))
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def test_socket_does_not_authenticate(new_service: NewService) -> None:
    service = new_service(concurrency=0, bad_tokens=2)
    ask = "GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"
    assert raw(service, (ask % "").encode()).startswith(b"HTTP/1.1 401 ")
    bad = (ask % "Authorization: Bearer rct_bad\r\nX-Forwarded-For: 192.0.2.1\r\n").encode()
    statuses = [raw(service, bad).split()[1] for _ in range(4)]
    assert statuses == [b"401", b"401", b"429", b"429"]
    # Whoever comes over the port has a count of their own.
    assert service.client("rct_bad").request("GET", "jobs").status_code == 401
    local(service).fine("submit", "local", "--", "true")
    (deed,) = service.admin.get("audit", action="job.submit")["deeds"]
    assert deed["address"] == "unix"
    [line] = [line for line in service.log_text().splitlines() if "POST /api/v1/jobs 201 " in line]
    assert "address=unix" in line


def test_slow_client_of_the_socket_is_disconnected(new_service: NewService) -> None:
    service = new_service(concurrency=0, request_timeout=1)
    assert raw(service, b"GET /api/v1/health HTTP/1.1\r\n").startswith(b"HTTP/1.1 408 ")
    assert raw(service, b"\x00\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    local(service).fine("jobs", "list")
    assert "Traceback" not in service.log_text()


# --- the lines of the start, and the limits of jobs ----------------------------------------------


class Started:
    """A service that was started at a terminal, or by a machine."""

    def __init__(self, printed: str, data_dir: Path) -> None:
        self.printed = printed
        match = re.search(r"listens on (http://\S+)", printed)
        assert match is not None, printed
        self.admin = Client(match[1], (data_dir / "admin-token").read_text().strip())

    def takes(self, path: object) -> bool:
        """Tell whether a job may have the directory as its source."""
        job = {"name": "n", "job_command": "true", "source_type": "copy", "source_path": str(path)}
        answer = self.admin.request("POST", "jobs", json=job)
        assert answer.status_code in (201, 400), answer.text
        return answer.status_code == 201


def read_until(terminal: int, pattern: str, deadline_s: float = 20) -> str:
    """Return what was printed, up to where the pattern is in it."""
    text, deadline = "", monotonic() + deadline_s
    while re.search(pattern, text) is None:
        assert monotonic() < deadline, text
        if is_readable(terminal, 0.1):
            text += os.read(terminal, 65536).decode()
    return text


@contextmanager
def started(
    home: Path, cwd: Path, *, at_terminal: bool, environment: dict[str, str] | None = None
) -> Iterator[Started]:
    """Start a service in a directory, by a user with that home."""
    data_dir = home / "data"
    options = {"port": 0, "data_dir": data_dir, "concurrency": 0}
    ours, theirs = pty.openpty() if at_terminal else os.pipe()
    with subprocess.Popen(
        command_line("serve", options),
        env=clean_environment(home, **(environment or {})),
        cwd=cwd,
        stdin=theirs if at_terminal else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            service = Started(read_until(ours, r"listens on .*\n"), data_dir)
            yield service
            service.admin.close()
            process.terminate()
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            os.close(ours)


@pytest.mark.parametrize("at_terminal", [True, False])
def test_admin_token_is_printed_to_a_terminal_only(tmp_path: Path, at_terminal: bool) -> None:
    with started(tmp_path, tmp_path, at_terminal=at_terminal) as service:
        token = (tmp_path / "data" / "admin-token").read_text().strip()
        assert (token in service.printed) is at_terminal
        assert (f"The admin's token is in {tmp_path}/data/admin-token" in service.printed) is not at_terminal


@pytest.mark.parametrize("at_terminal", [True, False])
def test_sign_in_link_is_printed_to_a_terminal_only(tmp_path: Path, at_terminal: bool) -> None:
    with started(tmp_path, tmp_path, at_terminal=at_terminal) as service:
        links = re.findall(r"(http://127\.0\.0\.1:[0-9]+)/sign-in\?link=(rcs_[0-9a-f]{64})", service.printed)
        assert len(links) == at_terminal
        for url, link in links:
            assert (url, sign_in(url, link), sign_in(url, link)) == (service.admin.base_url, 303, 403)


def test_open_prints_a_single_use_sign_in_link(tmp_path: Path) -> None:
    with started(tmp_path, tmp_path, at_terminal=False) as service:
        printed = local_program(tmp_path).fine("open").text.strip()
        url, _, link = printed.partition("/sign-in?link=")
        # Over the socket the command knows no port: the service does.
        assert url == service.admin.base_url
        assert (sign_in(url, link), sign_in(url, link)) == (303, 403)


def test_without_the_web_page_no_link_is_printed(new_service: NewService) -> None:
    service = new_service(concurrency=0, no_ui=None)
    assert "was started with --no-ui" in local(service).refused("open")


def local_program(home: Path) -> Program:
    """Return the command line of the user of a service that ``started`` has started."""
    return Program(home, {"REACTORCIDE_DATA_DIR": str(home / "data")})


def sign_in(url: str, link: str) -> int:
    """Redeem a one-time link, and return the status of the answer."""
    form = {"link": link}
    return requests.post(f"{url}/sign-in", data=form, allow_redirects=False, timeout=30).status_code


Where = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("at_terminal", "where", "has_root"),
    [
        (True, lambda home: home / "project", True),
        (True, lambda home: home, False),
        (True, lambda _: Path("/usr"), False),
        (True, lambda _: Path("/"), False),
        (False, lambda home: home / "project", False),
        (False, lambda _: Path("/"), False),
    ],
    ids=["project", "home", "elsewhere", "root", "machine", "machine in /"],
)
def test_default_source_root_is_the_working_directory(
    tmp_path: Path, at_terminal: bool, where: Where, has_root: bool
) -> None:
    home = tmp_path / "home"
    for directory in (home / "project" / "src", home / ".ssh"):
        directory.mkdir(parents=True)
    cwd = where(home)
    with started(home, cwd, at_terminal=at_terminal) as service:
        assert service.takes(cwd) is has_root
        assert service.takes(home / "project" / "src") is has_root
        assert not service.takes(home / ".ssh")
        assert not service.takes("/etc")
        assert (f"jobs may take sources from {cwd}," in service.printed) is has_root
        if not has_root:
            job: dict[str, Any] = {"name": "n", "job_command": "true"}
            sources = ({"source_type": "copy", "source_path": "/etc"}, {"source_type": "git", "git_url": "/"})
            for source in sources:
                answer = service.admin.request("POST", "jobs", json=job | source)
                assert "--source-root" in answer.json()["message"]


@pytest.mark.parametrize("home", ["", ".", "/"])
@pytest.mark.parametrize("cwd", ["{home}", "/usr"])
def test_without_a_usable_home_there_is_no_default_root(tmp_path: Path, home: str, cwd: str) -> None:
    where = Path(cwd.format(home=pwd.getpwuid(os.geteuid()).pw_dir))
    with started(tmp_path, where, at_terminal=True, environment={"HOME": home}) as service:
        assert "jobs may take sources from" not in service.printed
        assert not service.takes(where)


def test_directory_outside_of_all_roots_is_uploaded(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    (home / "project" / "file").write_text("taken along\n")
    with started(home, Path("/"), at_terminal=False) as service:
        command = Program(home, {"REACTORCIDE_DATA_DIR": str(home / "data")})
        job = command.fine("submit", "up", "--json", "--source", home / "project", "--", "cat file").json
        assert job["source_id"] is not None
        assert service.admin.get(f"jobs/{job['job_id']}")["source_path"] is None


@pytest.mark.parametrize("root", ["/", "{home}", "{home}/..", "/proc/self/root", "{home}/link"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_root_directory_is_refused_as_a_source_root(tmp_path: Path, root: str, by_variable: bool) -> None:
    home = tmp_path / "users" / "home"
    home.mkdir(parents=True)
    (home / "link").symlink_to("/")
    program = Program(home, {"REACTORCIDE_DATA_DIR": str(tmp_path / "data")})
    named = root.format(home=home)
    if by_variable:
        result = program.with_variables(REACTORCIDE_SOURCE_ROOT=named)("serve", "--port", 0)
    else:
        result = program("serve", "--port", 0, "--source-root", named)
    assert result.code == 2
    assert "cannot be a source root: every user's job could copy" in " ".join(result.errors.split())


@pytest.mark.parametrize("home", ["/tmp", "", "/"])  # noqa: S108  # nothing is put there
def test_home_directory_of_the_account_is_refused_as_a_source_root(tmp_path: Path, home: str) -> None:
    program = Program(tmp_path, {"REACTORCIDE_DATA_DIR": str(tmp_path / "data"), "HOME": home})
    result = program("serve", "--port", 0, "--source-root", pwd.getpwuid(os.geteuid()).pw_dir)
    assert result.code == 2
    assert "cannot be a source root: every user's job could copy" in " ".join(result.errors.split())


def test_unreadable_source_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = Program(tmp_path, {})("serve", "--port", 0, "--source-root", tmp_path / "loop" / "in")
    assert result.code == 2
    assert "loop/in cannot be looked at: Too many levels" in " ".join(result.errors.split())
