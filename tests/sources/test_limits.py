"""What a repository may cost the host: memory, disk, files, the list of its refs."""

import os
import resource
import socket
import threading
import time
from pathlib import Path

import pytest

from reactorcide.domain.errors import JobFailed
from reactorcide.sources.git import GitLimits, session

from .support import Client, Project, Repository, answering, endless_refs, git_daemon, git_http

MIB = 1 << 20


def test_endless_refs_stay_within_the_memory_limit_of_git(client: Client) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with endless_refs() as (url, sent):
        with pytest.raises(JobFailed, match=r"it needs more memory than 256 MiB \(--git-memory\)"):
            client(url, limits=GitLimits(memory_bytes=256 * MIB))
        assert sent[0] < 1 << 30
    largest_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Until it becomes git, a child has the memory of this process.
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert largest_kib <= max(before, own_kib, 256 << 10)


def test_list_of_refs_is_limited_in_bytes(
    origin: Repository, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        origin.git("update-ref", f"refs/heads/branch-{number}", "main")
    client(str(origin.path))
    monkeypatch.setattr("reactorcide.sources.git.refs._MAX_REFS_BYTES", 4096)
    with pytest.raises(JobFailed, match=r"^git: \S+ has more than 4 KiB of refs$"):
        client(str(origin.path))


@pytest.mark.parametrize("transport", ["path", "http", "daemon"])
def test_a_large_repository_is_stopped(
    origin: Repository, base: Path, client: Client, transport: str
) -> None:
    (origin.path / "large").write_bytes(os.urandom(6 * MIB))
    origin.commit("file", "more")
    limits = GitLimits(disk_bytes=4 * MIB)
    with git_http(base) as server, git_daemon(base) as daemon:
        where = {"path": str(base), "http": server.url, "daemon": daemon}[transport]
        url = f"{where}/origin"
        with pytest.raises(JobFailed) as caught:
            client(url, limits=limits)
        assert str(caught.value) == "git: the source takes more than 4 MiB of the disk (--max-disk)"
        client(url, limits=GitLimits(disk_bytes=40 * MIB))


def test_growth_during_the_checkout_is_stopped(origin: Repository, client: Client) -> None:
    """Packed it is small: zeros, and very many files."""
    (origin.path / "zeros").write_bytes(bytes(3 * MIB))
    for number in range(3):
        (origin.path / f"zeros-{number}").write_bytes(bytes(3 * MIB))
    origin.commit("file", "zeros")
    with pytest.raises(JobFailed, match=r"takes more than 8 MiB of the disk \(--max-disk\)"):
        client(str(origin.path), limits=GitLimits(disk_bytes=8 * MIB))
    origin.git("rm", "--quiet", "zeros", "zeros-0", "zeros-1", "zeros-2")
    for number in range(1500):
        (origin.path / f"empty-{number}").touch()
    origin.commit("file", "empty")
    with pytest.raises(JobFailed, match=r"takes more than 4 MiB of the disk \(--max-disk\)"):
        client(str(origin.path), limits=GitLimits(disk_bytes=4 * MIB))


def test_submodules_count_for_the_limit_of_the_repository(base: Path, client: Client) -> None:
    inner, outer = Project(base / "inner"), Project(base / "outer")
    for project in (inner, outer):
        (project.path / "large").write_bytes(os.urandom(MIB))
        sha = project.commit("file", "large")
        if project is inner:
            for name in ("one", "two"):
                outer.submodule(name, "../inner", sha)
    client(str(outer.path), limits=GitLimits(disk_bytes=40 * MIB))
    with pytest.raises(JobFailed, match=r"takes more than 5 MiB of the disk"):
        client(str(outer.path), limits=GitLimits(disk_bytes=5 * MIB))


def test_checkout_is_measured_while_git_runs(client: Client, base: Path, tmp_path: Path) -> None:
    """Here git writes and then waits for an answer that never comes."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text("#!/bin/sh\nfor n in 1 2 3; do head -c 1000000 /dev/zero > file$n; done\nexec sleep 60\n")
    fake.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(JobFailed, match="takes more than 2 MiB"):
        client(
            "https://192.0.2.7/x",
            env={"PATH": f"{fake.parent}:{os.environ['PATH']}"},
            limits=GitLimits(disk_bytes=2 * MIB),
        )
    assert time.monotonic() - began < 20


def test_limits_apply_to_every_process(client: Client, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    record = tmp_path / "seen"
    fake.write_text(f"#!/bin/sh\nsh -c 'ulimit -v; ulimit -f; ulimit -c' > {record}\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(JobFailed):
        client(
            "https://192.0.2.7/x",
            env={"PATH": f"{fake.parent}:{os.environ['PATH']}"},
            limits=GitLimits(memory_bytes=512 * MIB, disk_bytes=10 * MIB),
        )
    assert record.read_text().split() == [str(512 << 10), str(20 << 10), "0"]


@pytest.mark.parametrize(
    ("status", "content_type"),
    [(403, "text/plain"), (401, "text/plain"), (500, "text/plain"), (200, "text/plain"), (404, "text/html")],
)
def test_non_git_answer_is_reported_by_its_status_only(
    client: Client, status: int, content_type: str
) -> None:
    with answering(status, b"the inner secret\n", content_type) as port, pytest.raises(JobFailed) as caught:
        client(f"http://127.0.0.1:{port}/x")
    assert "secret" not in str(caught.value) + client.log
    assert str(caught.value).startswith(f"git: cannot reach http://127.0.0.1:{port}/x: ")


def test_non_http_answer_is_not_shown(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(b"secret of a service\n")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(JobFailed) as caught:
            client(f"git://127.0.0.1:{listener.getsockname()[1]}/x")
        thread.join()
    assert "secr" not in str(caught.value) + client.log


def test_a_large_file_takes_less_memory_than_it_has_bytes(origin: Repository, client: Client) -> None:
    (origin.path / "large").write_bytes(os.urandom(64 * MIB))
    origin.commit("file", "more")
    # The file and the pack that it is in, each in memory as a whole, are more than that.
    client(str(origin.path), limits=GitLimits(memory_bytes=112 * MIB))
    assert (client.into / "large").stat().st_size == 64 * MIB


def test_silent_server_is_given_up_before_the_deadline(
    client: Client, hanging: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = session._CONFIG.replace("lowSpeedTime = 120", "lowSpeedTime = 1")
    monkeypatch.setattr(session, "_CONFIG", config)
    began = time.monotonic()
    with pytest.raises(JobFailed, match="Operation too slow"):
        client(f"http://127.0.0.1:{hanging.getsockname()[1]}/x", timeout_s=60)
    assert time.monotonic() - began < 40
