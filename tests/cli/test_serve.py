"""What ``serve`` refuses to start with."""

import os
import socket
from dataclasses import Field
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from reactorcide.settings import all_settings, option_name
from tests.cli.conftest import Program
from tests.support.launch import LAUNCHER
from tests.support.waiting import wait_until


def is_number(setting: Field[Any]) -> bool:
    """Return whether an option takes a number that is no size."""
    return setting.metadata["kind"] is None and setting.type in (int, int | None, float, float | None)


def under(limit: str) -> list[str]:
    """Return the program, run under a limit as the shell's ``ulimit`` takes it."""
    return ["/bin/sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *LAUNCHER]


def test_too_few_open_files_are_refused(lone: Program) -> None:
    refused = lone.refused("serve", "--port", 0, python=under("-n 60"))
    assert "may have 60 open files, and needs at least 128; raise the limit: ulimit -n 4096" in refused


def test_file_size_limit_is_named_when_it_stops_the_start(lone: Program) -> None:
    ended = lone("serve", "--port", 0, python=under("-f 120"))
    assert ended.code == 3
    assert (
        "disk I/O error (this process may write no file of more than 60 KiB: see ulimit -f)"
        in ended.errors.splitlines()[-1]
    )


def test_data_directory_that_takes_no_byte_is_named(lone: Program) -> None:
    refused = lone.refused("serve", "--port", 0, python=under("-f 0"))
    assert "cannot be used: File too large; choose one with --data-dir" in refused


@pytest.mark.parametrize(
    "options",
    [
        ["--default-cpu-limit", "nan"],
        ["--lease", "inf"],
        ["--lease", "1e300"],
        *(["--" + option_name(setting), "9" * 30] for setting in all_settings() if is_number(setting)),
    ],
    ids=" ".join,
)
def test_numbers_out_of_bounds_are_refused(lone: Program, options: list[str]) -> None:
    refused = lone("serve", "--port", 0, *options)
    assert refused.code == 2
    assert f"Invalid value for '{options[0]}'" in refused.errors


def test_address_that_becomes_free_within_a_second_is_taken(lone: Program, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, (tmp_path / "log").open("wb") as log:
        port = other.getsockname()[1]
        service = lone.start("serve", "--port", port, "--concurrency", 0, stdout=log, stderr=log)
        try:
            # It has the lock, so it has come to the address.
            wait_until(lambda: (tmp_path / "data" / "lock").exists(), 20, "it has the data directory")
            Timer(0.2, other.close).start()
            wait_until(lambda: b"listens on" in (tmp_path / "log").read_bytes(), 20, "it has started")
        finally:
            service.terminate()
            assert service.wait(20) == 0


_NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@as_root
@pytest.mark.parametrize("name", ["", "lock", "secret-key", "reactorcide.db", "objects"])
def test_files_of_other_users_in_the_data_directory_are_refused(
    lone: Program, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    data_dir = tmp_path / "data"
    data_dir.mkdir(0o700)
    planted = data_dir / name
    if name:
        planted.symlink_to(victim)
    os.chown(planted, _NOBODY, _NOBODY, follow_symlinks=False)
    assert f"{planted} belongs to another user ({_NOBODY}), who could" in lone.refused("serve", "--port", 0)
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in data_dir.iterdir()) == [name] * bool(name)


def test_lock_file_that_is_a_link_is_refused(lone: Program, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lock").symlink_to(victim)
    assert f"{tmp_path / 'data'} cannot be used: Too many levels" in lone.refused("serve", "--port", 0)
    assert victim.read_text() == "precious"
    assert "precious" not in lone.refused("jobs", "list")


ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b"


@pytest.mark.parametrize(
    "options",
    [
        ["--host", ESCAPES],
        ["--tls-cert", ESCAPES, "--tls-key", ESCAPES],
        ["--data-dir", "{file}"],
        ["--source-root", ESCAPES],
        ["--" + ESCAPES],
        [ESCAPES],
    ],
)
def test_control_characters_in_options_do_not_reach_the_terminal(
    lone: Program, tmp_path: Path, options: list[str]
) -> None:
    file = tmp_path / ESCAPES
    file.touch()
    result = lone("serve", "--port", 0, *(option.format(file=file) for option in options))
    assert result.code in (1, 2)
    assert r"\x1b]0;owned\x07\x1b[31m" in result.errors
    assert set(result.errors) & set(ESCAPES[::-1]) <= set("]0;owned[31m")


def test_control_characters_in_paths_do_not_reach_the_terminal(lone: Program, tmp_path: Path) -> None:
    program = lone.with_variables(REACTORCIDE_DATA_DIR=str(tmp_path / f"data{ESCAPES}"))
    with (tmp_path / "log").open("wb") as log:
        service = program.start("serve", "--port", 0, "--concurrency", 0, stdout=log, stderr=log)
        try:
            wait_until(lambda: b"admin's token" in (tmp_path / "log").read_bytes(), 20, "it has started")
            saved = program.fine("backup", tmp_path / f"saved{ESCAPES}.tgz")
        finally:
            service.terminate()
            assert service.wait(20) == 0
    restored = lone.fine(
        "restore", tmp_path / f"saved{ESCAPES}.tgz", "--data-dir", tmp_path / f"new{ESCAPES}"
    )
    for printed in (saved.text, restored.text, (tmp_path / "log").read_text()):
        assert r"\x1b]0;owned\x07\x1b[31m" in printed
        assert "\x1b" not in printed
