"""``reactorcide doctor``: all fine, and each thing broken."""

import fcntl
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reactorcide.cli.doctor import _engine_advice
from tests.cli.conftest import Program, Result, Service


def findings(result: Result) -> dict[str, dict[str, Any]]:
    """Return the result of each check by its name."""
    return {item["check"]: item for item in result.json["checks"]}


def broken(program: Program, *arguments: object) -> dict[str, dict[str, Any]]:
    """Run the doctor, which has to report problems, and return them by the name of the check."""
    result = program("doctor", "--json", "--port", 0, *arguments)
    assert result.code == 1
    assert result.json["ok"] is False
    return {name: item for name, item in findings(result).items() if not item["ok"]}


def test_healthy_system_passes_all_checks(lone: Program, tmp_path: Path) -> None:
    result = lone.fine("doctor", "--port", 0)
    lines = result.text.splitlines()
    assert [line[0] for line in lines] == ["✓"] * 6
    for number, word in enumerate(
        ("engine ", "/git", "GiB free, not in use", "in the data directory", "is free", "embedded")
    ):
        assert word in lines[number]
    # It looks, and makes nothing.
    assert list(tmp_path.iterdir()) == []

    as_json = lone.fine("doctor", "--port", 0, "--json")
    assert as_json.json["ok"] is True
    assert all(item["ok"] and item["advice"] is None for item in findings(as_json).values())


def test_data_directory_of_a_running_service_passes(reactorcide: Program, service: Service) -> None:
    report = findings(reactorcide.fine("doctor", "--json", "--port", service.url.rpartition(":")[2]))
    assert f"in use by process {service.pid}" in report["data directory"]["message"]
    assert "answers" in report["port"]["message"]


def test_missing_engine_is_reported(lone: Program, tmp_path: Path) -> None:
    nowhere = lone.with_variables(DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    assert nowhere("doctor", "--port", 0).text.startswith("✗ Docker")
    assert "correct DOCKER_HOST" in broken(nowhere)["Docker"]["advice"]

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "docker.sock"))
        assert "start the engine" in broken(nowhere)["Docker"]["advice"]

    away = lone.with_variables(DOCKER_HOST="tcp://127.0.0.1:9")
    assert set(problems := broken(away)) == {"Docker"}
    assert "check DOCKER_HOST" in problems["Docker"]["advice"]


def test_engine_without_permission_is_reported(tmp_path: Path) -> None:
    # Root may always connect, and another user may not be able to read the checkout: the message is enough.
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        advice = _engine_advice(f"unix://{path}", "PermissionError(13, 'Permission denied')")
    assert "usermod -aG docker" in advice


def test_missing_or_old_git_is_reported(lone: Program, tmp_path: Path) -> None:
    lone.environment["PATH"] = str(tmp_path)
    assert "install git" in broken(lone)["git"]["advice"]

    git = tmp_path / "git"
    git.write_text("#!/bin/sh\necho git version 2.36.9\n")
    git.chmod(0o755)
    problems = broken(lone)
    assert "2.36.9" in problems["git"]["message"]
    assert "2.37" in problems["git"]["advice"]

    git.write_text("#!/bin/sh\nexit 1\n")
    assert "does not run" in broken(lone)["git"]["message"]


def test_unusable_data_directory_is_reported(lone: Program, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        problems = broken(lone, "--data-dir", path)
        assert set(problems) == {"data directory"}
        assert "--data-dir" in problems["data directory"]["advice"]


def test_running_service_without_socket_is_reported(lone: Program, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    lone.fine("doctor", "--port", 0)
    assert list(data_dir.iterdir()) == []
    # A service that works there, and does not listen there.
    with open(data_dir / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        problem = broken(lone)["data directory"]
    assert "has no socket: No such file" in problem["message"]
    assert "REACTORCIDE_API_URL" in problem["advice"]


def test_full_disk_is_reported(lone: Program, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tiny", str(tiny)], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        assert "free some space" in broken(lone, "--data-dir", tiny)["data directory"]["advice"]
    finally:
        subprocess.run(["umount", str(tiny)], check=True)


def test_port_in_use_is_reported(lone: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # It takes connections and never says a word.
        problems = broken(lone, "--port", listener.getsockname()[1])
    assert set(problems) == {"port"}
    assert "--port" in problems["port"]["advice"]


def test_external_corndogs_is_checked(lone: Program, tmp_path: Path) -> None:
    problems = broken(lone, "--corndogs-address", "127.0.0.1:9")
    assert set(problems) == {"Corndogs"}
    assert "reactorcide corndogs" in problems["Corndogs"]["advice"]

    with lone.start(
        *("corndogs", "--port", 0, "--data-dir", tmp_path / "corndogs"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[-1].decode()
        result = lone.fine("doctor", "--json", "--port", 0, "--corndogs-address", address)
        process.terminate()
        assert process.wait(10) == 0
    assert "answers" in findings(result)["Corndogs"]["message"]
