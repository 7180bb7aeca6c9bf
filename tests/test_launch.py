"""A fork of the tests' own behaves as a new interpreter does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launch import LAUNCHER, Forked, is_preloaded, run
from tests.support.service import clean_environment
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--version"], {}),
        (["jobs", "list"], {}),
        (["jobs", "list"], {"REACTORCIDE_API_URL": "http://127.0.0.1:1", "REACTORCIDE_API_TOKEN": "t"}),
        (["no-such-command"], {}),
        (["check", "nothing-here"], {}),
    ],
)
def test_fork_prints_and_ends_as_a_new_interpreter(
    tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    command, environment = [*LAUNCHER, *arguments], clean_environment(tmp_path, **variables)
    assert is_preloaded(command, environment)
    forked = run(command, environment, tmp_path, input=b"", timeout_s=60)
    fresh = subprocess.run(command, env=environment, cwd=tmp_path, input=b"", capture_output=True)
    assert (forked.returncode, forked.stdout, forked.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_fork_has_its_own_session_and_is_ended_by_a_signal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+b") as log, open(os.devnull, "rb") as nothing:
        options = ["corndogs", "--port", "0", "--data-dir", str(tmp_path / "data")]
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        process = Forked([LAUNCHER[1], *options], clean_environment(tmp_path), tmp_path, streams)
        wait_until(lambda: b"listens on" in (tmp_path / "log").read_bytes(), 30, "the queue listens")
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid
        assert Path(f"/proc/{process.pid}/cwd").readlink() == tmp_path
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        process.send_signal(signal.SIGKILL)
        assert process.poll() == -signal.SIGKILL


def test_variables_that_python_reads_need_a_new_interpreter(tmp_path: Path) -> None:
    assert not is_preloaded(LAUNCHER, clean_environment(tmp_path, PYTHONPATH="/nowhere"))
    assert not is_preloaded(LAUNCHER, clean_environment(tmp_path, LC_ALL="C"))
    assert not is_preloaded((sys.executable, "elsewhere.py"), clean_environment(tmp_path))
