"""Users with tokens who mean harm: what they upload, submit, list and fetch, each kind over and over.

They run in a process of their own: ``python -m tests.support.hostile_users``, with a ``Target`` as JSON.
"""

import gzip
import io
import itertools
import json
import os
import random
import select
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import requests

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.domain.errors import CorndogsUnavailable
from reactorcide.jobs.tasks import TASK_CLAIMED, TASK_WAITING
from tests.sources.support import Repository, answering, blabbing, endless_refs, git_http
from tests.support.client import Client
from tests.support.hostile import attackers
from tests.support.service import Service
from tests.support.tars import header, member, tar, tar_gz

_GZIP = {"Content-Type": "application/gzip"}
_MEBIBYTE = 1 << 20
_ADDRESS = "127.0.0.4"
"""Not that of the anonymous clients, who leave each other little room."""
_JOB_ENDS_WITHIN_S = 300
"""Whatever a job is, by then its place is another's."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What they attack, and for how long."""

    base_url: str
    tokens: list[str]
    large: str
    """The path of an artifact of 256 MB, and who may have it."""
    large_token: str
    image: str
    """Its list of users is 64 MB long."""
    corndogs: str
    seconds: float


def hostile_users(target: Target) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Attack a service as users from a separate process, which prints the results as JSON."""
    return attackers("tests.support.hostile_users", json.dumps(asdict(target)))


# --- jobs ----------------------------------------------------------------------------------------------

JOBS: dict[str, Fields] = {
    "flood": {"job_command": "yes 'all work and no play'; sleep 60"},
    "long line": {"job_command": "tr '\\0' x </dev/zero | head -c 30m"},
    "NULs": {"job_command": "head -c 100m /dev/zero; sleep 60"},
    "disk": {"job_command": "dd if=/dev/zero of=/tmp/full bs=1M count=100; sleep 60"},
    "file without a name": {
        "job_command": "exec 3>/tmp/full; rm /tmp/full; head -c 100m /dev/zero >&3; sleep 60"
    },
    "fork bomb": {
        "job_command": "trap 'exec sleep 60' EXIT; f() { f | f & }; while :; do f; done",
        "timeout_seconds": 4,
    },
    "memory": {"job_command": "tail /dev/zero", "memory_limit": "32m"},
    "hears no TERM": {"job_command": "trap '' TERM; while :; do sleep 1; done", "timeout_seconds": 2},
    "kills all": {"job_command": "kill -9 1; kill -9 -1"},
    "hole": {"job_command": "truncate -s 7000G /job/artifacts/hole", "artifacts": ["nothing"]},
    "hole that is wanted": {"job_command": "truncate -s 7000G /job/artifacts/hole"},
    "many artifacts": {
        "job_command": "cd /job/artifacts; for i in $(seq 5000); do echo x >$i; done",
    },
    "deep artifacts": {
        "job_command": "cd /job/artifacts; for i in $(seq 300); do mkdir d; cd d; echo x >f; done",
        "artifacts": ["/".join(["**"] * 10) + f"/nothing-{number}" for number in range(100)],
    },
    "odd artifacts": {
        "job_command": """cd /job/artifacts; echo x >"$(printf 'a\\nb')"; ln "$(printf 'a\\nb')" hard
            ln -s /etc/passwd link; ln -s / root; mkfifo fifo; echo y >"$(printf '\\033]0;owned\\007')"
            printf '\\377' >"$(printf '\\377\\376')"; mkdir ...; echo z >'.../..\\..'""",
    },
    "large artifact": {"job_command": "head -c 40m /dev/urandom >/job/artifacts/large"},
    "no such image": {"runner_image": "registry.invalid/none:none"},
    "source outside": {"source_path": "../../../../etc"},
    "globs": {"artifacts": ["/".join(["**"] * 340)] * 100},
    "odd places": {"code_dir": "/etc", "job_dir": "/proc/1/root"},
}


@contextmanager
def git_jobs(base: Path) -> Iterator[dict[str, Fields]]:
    """Yield jobs with hostile repositories, served by real git and by what only pretends to be."""
    large = Repository(base / "large")
    (large.path / "noise").write_bytes(os.urandom(60 * _MEBIBYTE))
    large.commit("file", "x")
    bomb = Repository(base / "bomb")
    for number in range(12):
        (bomb.path / f"zeros-{number}").write_bytes(bytes(10 * _MEBIBYTE))
    bomb.commit("file", "x")
    with ExitStack() as stack:
        server = stack.enter_context(git_http(base))
        circle = Repository(base / "circle")
        sha = circle.commit("file", "x")
        circle.git("update-index", "--add", "--cacheinfo", f"160000,{sha},inner")
        (circle.path / ".gitmodules").write_text(
            f'[submodule "inner"]\n\tpath = inner\n\turl = {server.url}/circle/.git\n'
        )
        circle.commit("file", "y")
        refs, _ = stack.enter_context(endless_refs())
        redirect = stack.enter_context(answering(302, b"", Location="http://127.0.0.9:1/x"))
        words = stack.enter_context(blabbing(b"\x1b]0;owned\x07" * 1000))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        urls = {
            "large": f"{server.url}/large/.git",
            "bomb": f"{server.url}/bomb/.git",
            "circle": f"{server.url}/circle/.git",
            "refs without end": refs,
            "redirect": f"http://127.0.0.1:{redirect}/x",
            "words": f"http://127.0.0.1:{words}/x",
            "silence": f"http://127.0.0.1:{silent.getsockname()[1]}/x",
            "link-local": "http://169.254.169.254/latest/meta-data",
            "option": "--upload-pack=touch /tmp/owned",
        }
        yield {f"git: {name}": {"source_type": "git", "git_url": url} for name, url in urls.items()}


def run(client: Client, fields: Fields) -> str:
    """Submit a job, look at it as a hostile user would, and return how it ended."""
    answer = client.post_job(name="hostile", **fields)
    if answer.status_code != 201:
        assert answer.status_code in (400, 413), answer.text
        return f"refused {answer.status_code}"
    job = client.wait(answer.json(), deadline_s=_JOB_ENDS_WITHIN_S)
    for item in client.artifacts(job)[:20]:
        client.request("GET", f"jobs/{job['job_id']}/artifacts/{quote(item['path'])}")
    return str(job["status"])


# --- uploads -------------------------------------------------------------------------------------------


def _long_path() -> bytes:
    return tar_gz(member("a/" * 30_000 + "x", b"x"))


def _bomb() -> bytes:
    return tar_gz(member("bomb", bytes(64 * _MEBIBYTE)))


def _endless_header() -> bytes:
    return gzip.compress(header("x", kind=tarfile.XHDTYPE, size=1 << 40) + os.urandom(_MEBIBYTE))


def _many_members() -> bytes:
    return tar_gz(*(member(f"{number}", b"") for number in range(50_000)))


def _nested_gzip() -> bytes:
    return gzip.compress(gzip.compress(bytes(64 * _MEBIBYTE)))


def _holes() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("hole")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 15}
        archive.addfile(info)
    return gzip.compress(file.getvalue())


def _noise() -> bytes:
    return gzip.compress(tar(member("noise", os.urandom(20 * _MEBIBYTE))), 0)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "long path": _long_path,
    "bomb": _bomb,
    "endless header": _endless_header,
    "many members": _many_members,
    "nested": _nested_gzip,
    "holes": _holes,
    "too large": _noise,
    "outside": lambda: tar_gz(member("../../x", b"x"), member("/etc/passwd", b"x")),
    "no gzip": lambda: os.urandom(100_000),
    "half": lambda: tar_gz(member("x", os.urandom(_MEBIBYTE)))[:-1000],
}


def upload(client: Client, data: bytes) -> str:
    """Upload it and return the answer's status."""
    answer = client.request("POST", "sources", data=data, headers=_GZIP)
    assert answer.status_code in (200, 201, 400, 413, 503), answer.text
    return str(answer.status_code)


def upload_slowly(client: Client, sockets: int) -> str:
    """Send a byte of each of some uploads now and then, until the service has ended them all."""
    head = (
        "POST /api/v1/sources HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/gzip\r\n"
        f"Authorization: Bearer {client.token}\r\nContent-Length: 1000000\r\n\r\n"
    )
    with ExitStack() as stack:
        connections = [stack.enter_context(_connect(client)) for _ in range(sockets)]
        for one in connections:
            one.sendall(head.encode())
        deadline = monotonic() + 180
        while connections:
            assert monotonic() < deadline, "a slow upload is never ended"
            for one in select.select(connections, [], [], 1)[0]:
                with suppress(OSError):
                    one.recv(65536)
                connections.remove(one)
            for one in connections:
                with suppress(OSError):
                    one.sendall(b"x")
    return "ended"


def _connect(client: Client) -> socket.socket:
    host, _, port = client.base_url.rpartition("//")[2].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60, source_address=(_ADDRESS, 0))


def download_slowly(client: Client, path: str, bytes_per_s: int) -> str:
    """Fetch a large file at that rate for two minutes, or until the service ends it."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.token}\r\n\r\n"
    with closing(_connect(client)) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(head.encode())
        deadline = monotonic() + 120
        while monotonic() < deadline:
            if bytes_per_s == 0:
                # Nothing is read, so that only an error tells of the end.
                poll = select.poll()
                poll.register(reader, 0)
                if poll.poll(1000):
                    return "ended"
            else:
                try:
                    if not reader.recv(bytes_per_s // 10):
                        return "ended"
                except ConnectionResetError:
                    return "reset"
                sleep(0.1)
        assert bytes_per_s, "a download of which nothing is read is never ended"
    return "went on"


# --- all else ------------------------------------------------------------------------------------------


def list_large_jobs(client: Client) -> str:
    """Submit jobs with large commands, have them listed over and over, and delete them."""
    # As JSON each takes six times as much.
    command = "\x01" * (100 << 10)
    queue = f"never-{random.randrange(1000)}"  # noqa: S311  # names, no secrets
    try:
        for _ in range(30):
            answer = client.post_job(job_command=command, queue_name=queue, name="large")
            assert answer.status_code == 201, answer.text
        address, headers = f"{client.base_url}/api/v1/jobs", {"Authorization": f"Bearer {client.token}"}
        for _ in range(5):
            answer = requests.get(address, params={"limit": "1000"}, headers=headers, timeout=60)
            assert (answer.status_code, len(answer.content) <= 8 << 20) == (200, True)
    finally:
        for job in client.get("jobs", limit=1000, queue_name=queue)["jobs"]:
            client.request("PUT", f"jobs/{job['job_id']}/cancel")
            client.request("DELETE", f"jobs/{job['job_id']}")
    return "listed"


def follow_and_read_nothing(client: Client) -> str:
    """Follow a job that prints more than fits on the way, and read none of it."""
    job = client.submit("yes | head -c 20m; sleep 5", timeout_seconds=20)
    with client.follow(job):
        client.wait(job, deadline_s=_JOB_ENDS_WITHIN_S)
    return "ended"


def call_by_foreign_names(client: Client) -> str:
    """Ask as a page does that was rebound to the service."""
    for path in ("/metrics", "/api/v1/ready", "/api/v1/health", "/api/v1/jobs"):
        for host in ("evil.example.com", "localhost.evil.example.com:8080", "127.0.0.1.nip.io"):
            answer = requests.get(client.base_url + path, headers={"Host": host}, timeout=60)
            assert answer.status_code in (401, 421), (path, host, answer.text)
    return "refused"


def send_false_tasks(corndogs: str) -> str:
    """Put tasks into the queue that nobody has submitted as a job, and take them away again.

    Some at a time: who fills the queue by the thousand holds up all jobs, as the docs say.
    """
    payloads = (b"[" * 100_000, b"{}", b"\xff" * 1000, b"null", b'{"job_id": "' + b"x" * 100_000 + b'"}', b"")
    with closing(GrpcCorndogs(corndogs)) as client:
        tasks = [client.submit_task("default", payload=payload, priority=1000) for payload in payloads]
        sleep(5)
        for task in tasks:
            for state in (TASK_WAITING, TASK_CLAIMED):
                # Where the service has it just now it is in the other state, and where it is in none the
                # service is just putting it back.
                client.cancel_task(task.uuid, "default", state)
    return "sent"


# --- over and over -------------------------------------------------------------------------------------

Attack = tuple[str, Callable[[], str]]


def attack(target: Target) -> dict[str, Any]:
    """Attack until the time is up; return how often each attack ended in which way, and what went wrong."""
    ended: Counter[str] = Counter()
    failures: list[str] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        git_jobs(Path(directory)) as of_git,
        ExitStack() as stack,
    ):
        # The repositories are there only now.
        until = monotonic() + target.seconds
        clients = itertools.cycle(target.tokens)

        def client() -> Client:
            return stack.enter_context(closing(Client(target.base_url, next(clients), source=_ADDRESS)))

        def jobs(which: dict[str, Fields]) -> list[Attack]:
            one = client()
            return [(name, lambda fields=fields: run(one, fields)) for name, fields in which.items()]  # type: ignore[misc]  # mypy and default arguments

        def archives() -> list[Attack]:
            one = client()
            return [
                (f"upload: {name}", lambda make=make: upload(one, make()))  # type: ignore[misc]  # as above
                for name, make in ARCHIVES.items()
            ]

        slow, lister, follower, page = client(), client(), client(), client()
        owner = stack.enter_context(closing(Client(target.base_url, target.large_token, source=_ADDRESS)))
        image: Fields = {"runner_image": target.image, "job_command": "id"}
        kinds = [
            jobs(JOBS | {"users without end": image}),
            jobs(dict(reversed(JOBS.items()))),
            jobs(of_git),
            archives(),
            [("slow uploads", lambda: upload_slowly(slow, 8))],
            [("download of which nothing is read", lambda: download_slowly(owner, target.large, 0))],
            [("slow download", lambda: download_slowly(owner, target.large, 40 << 10))],
            [("list of large jobs", lambda: list_large_jobs(lister))],
            [("reads nothing", lambda: follow_and_read_nothing(follower))],
            [("foreign host", lambda: call_by_foreign_names(page))],
            [("false tasks", lambda: send_false_tasks(target.corndogs))],
        ]
        is_over = threading.Event()

        def work(attacks: list[Attack]) -> None:
            for name, act in itertools.cycle(attacks):
                if monotonic() > until:
                    return
                try:
                    ended[f"{name}: {act()}"] += 1
                except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    # What is refused may be reset before all of it is sent, and a list when room is short.
                    ended[f"{name}: cut off"] += 1
                except CorndogsUnavailable:
                    # The queue, too, answers when it can, and who calls it has a deadline of its own.
                    ended[f"{name}: unanswered"] += 1
                except Exception as exc:
                    failures.append(f"{name}: {type(exc).__name__}: {str(exc)[:2000]}")
                is_over.wait(0.2)

        threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"ended": dict(sorted(ended.items())), "failures": failures}


def users_of(service: Service, count: int) -> list[str]:
    """Make users and return their tokens."""
    return [str(service.add_user(f"hostile-{number}").token) for number in range(count)]


if __name__ == "__main__":
    print(json.dumps(attack(Target(**json.loads(sys.argv[1])))), flush=True)
