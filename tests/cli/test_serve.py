"""What ``serve`` refuses to start with."""

from tests.cli.conftest import PROGRAM, Program


def under(limit: str) -> list[str]:
    """Return the program, run under a limit as the shell's ``ulimit`` takes it."""
    return ["/bin/sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *PROGRAM]


def test_too_few_open_files_are_refused(lone: Program) -> None:
    refused = lone.refused("serve", "--port", 0, python=under("-n 60"))
    assert "may have 60 open files, and needs at least 128; raise the limit: ulimit -n 4096" in refused
