"""The configuration, limits and deadline that all git processes of one checkout share."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

from reactorcide.domain.errors import JobFailed
from reactorcide.network.addresses import Address, resolve
from reactorcide.sources.process import (
    MAX_RECORD_BYTES,
    DeadlinePassed,
    Interrupt,
    ProcessLimits,
    RecordTooLong,
    run,
)
from reactorcide.sources.usage import DiskLimit
from reactorcide.threads import call_in_thread

# Variables passed on from the service's environment: for finding programs, and for leaving the network.
_PASSED_ON = {
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
    *(f"{name}_proxy" for name in ("http", "https", "all", "no")),
    *(f"{name}_PROXY" for name in ("HTTPS", "ALL", "NO")),  # no HTTP_PROXY: curl ignores it, for safety
}

_CONFIG = """\
[user]
	name = Reactorcide
	email = reactorcide@localhost
[safe]
	directory = *
[init]
	defaultBranch = main
	templateDir =
[core]
	hooksPath = /dev/null
	fsmonitor = false
	packedGitLimit = 256m
	packedGitWindowSize = 32m
	bigFileThreshold = 32m
[pack]
	threads = 2
	windowMemory = 64m
[transfer]
	unpackLimit = 1
[http]
	lowSpeedLimit = 1
	lowSpeedTime = 120
[gc]
	auto = 0
[maintenance]
	auto = false
[submodule]
	recurse = false
[advice]
	detachedHead = false
"""
SSH = (
    "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=60 -oServerAliveInterval=30 "
    "-oServerAliveCountMax=4"
)
_POLL_S = 0.05

Refusal = Callable[[Address], str | None]
"""Returns a phrase that says why an address is refused; ``None`` if git may connect to it."""


@dataclass(frozen=True, slots=True)
class GitLimits:
    """The limits of git on this host; 0 is no limit."""

    memory_bytes: int = 2 << 30
    """For each of its processes."""
    disk_bytes: int = 0


class Session:
    """Runs programs for all repositories of one checkout; ``home`` holds git's configuration.

    Submodules get the credentials of the repository, and of this host, only if it ``shares_credentials``.
    """

    def __init__(
        self,
        program: str,
        home: Path,
        env: Mapping[str, str],
        log: Callable[[bytes], None],
        interrupt: Interrupt,
        deadline: float,
        *,
        fetch_options: tuple[str, ...],
        limits: GitLimits,
        disk: DiskLimit,
        refusal: Refusal | None,
        shares_credentials: bool = True,
    ) -> None:
        self.program = program
        self.fetch_options = fetch_options
        self.limits = limits
        self.disk = disk
        self.refusal = refusal
        self.shares_credentials = shares_credentials
        self.trace = home / "trace"
        self.log = log
        self.interrupt = interrupt
        self.deadline = deadline
        self._time_s = max(1, round(deadline - time.monotonic()))
        config = home / "config"
        config.write_text(_CONFIG, encoding="utf-8")
        self.env = {
            **{name: value for name, value in env.items() if name in _PASSED_ON},
            "HOME": str(home),
            "LANG": "C.UTF-8",
            # Each further arena of the C library reserves 64 MiB of address space.
            "MALLOC_ARENA_MAX": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_DEFAULT_HASH": "sha1",
            # A local repository may declare itself incomplete and name a program that gets the rest; newer
            # versions of git refuse that by themselves.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_SSH_COMMAND": SSH,
            "GIT_TERMINAL_PROMPT": "0",
        }

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
        records: bool = False,
    ) -> int:
        """Run a program under the checkout's limits and return its exit code; see ``process.run``."""
        try:
            return run(
                command,
                cwd=cwd,
                env=env,
                stdout=stdout,
                stderr=stderr,
                interrupt=self.interrupt,
                deadline=self.deadline,
                records=records,
                limits=ProcessLimits(self.limits.memory_bytes, self.limits.disk_bytes),
                watch=self.disk.check_if_due,
            )
        except DeadlinePassed as error:
            raise self._deadline_passed() from error
        except RecordTooLong as error:
            raise JobFailed(
                "git: the repository has a path, or a line of .gitmodules, of more than "
                f"{MAX_RECORD_BYTES} bytes"
            ) from error

    def resolve(self, host: str) -> list[Address]:
        """Return the addresses of a host; see ``addresses.resolve``. Ends early if the attempt must stop."""
        # The owner of a name can make the system's resolver wait, and that wait cannot be interrupted.
        answer = call_in_thread(lambda: resolve(host), "resolve")
        while not answer.done():
            self.interrupt.check()
            if time.monotonic() >= self.deadline:
                raise self._deadline_passed()
            wait([answer], _POLL_S)
        return answer.result()

    def _deadline_passed(self) -> JobFailed:
        return JobFailed(f"git: preparing took longer than {self._time_s} s and was stopped")
