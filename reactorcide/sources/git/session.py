"""The configuration, limits and deadline that all git processes of one checkout share."""

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from pathlib import Path

from reactorcide.domain.errors import JobFailed
from reactorcide.domain.git_access import DeployKey
from reactorcide.lib.records import record
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
PINNED_HOSTS = """\
github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl
gitlab.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf
"""
"""As published: docs.github.com, "GitHub's SSH key fingerprints"; docs.gitlab.com, "GitLab.com settings"."""
_MAX_KNOWN_HOSTS_CHARS = 64 << 10
_POLL_S = 0.05

Refusal = Callable[[Address], str | None]
"""Returns a phrase that says why an address is refused; ``None`` if git may connect to it."""


@record
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
        deploy_key: DeployKey | None = None,
    ) -> None:
        self.program = program
        self.fetch_options = fetch_options
        self.limits = limits
        self.disk = disk
        self.refusal = refusal
        self.shares_credentials = shares_credentials
        self._deploy_key = deploy_key
        self._key_path = home / "key"
        self._known_hosts_path = home / "known_hosts"
        self._known_hosts = ""
        if deploy_key is not None:
            self._known_hosts = PINNED_HOSTS + _lines(deploy_key.known_hosts)
            self._known_hosts_path.write_text(self._known_hosts, encoding="utf-8")
            with open(self._key_path, "x", encoding="utf-8", opener=_open_private) as file:
                file.write(deploy_key.private)
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

    def ssh(self, host: str, *, cwd: Path) -> str:
        """Return the ssh command for a host, as ``known_hosts`` names it.

        With a deploy key a host whose key is known has to have that key. Another host's is taken as it
        comes the first time; ``learn_hosts`` hands it on.
        """
        if self._deploy_key is None:
            return SSH
        is_there = not self.run(
            ["ssh-keygen", "-F", host, "-f", str(self._known_hosts_path)],
            cwd=cwd,
            env=self.env,
            stdout=lambda line: None,
            stderr=lambda line: None,
        )
        known_hosts = _ssh_path(self._known_hosts_path)
        options = (
            f"-oIdentityFile={_ssh_path(self._key_path)}",
            "-oIdentitiesOnly=yes",
            "-oIdentityAgent=none",
            f"-oUserKnownHostsFile={known_hosts}" + ("" if is_there else " ~/.ssh/known_hosts"),
            f"-oStrictHostKeyChecking={'yes' if is_there else 'accept-new'}",
            "-oHashKnownHosts=no",
            "-oUpdateHostKeys=no",
        )
        program, _, others = SSH.partition(" ")
        # Of an option that is given twice ssh takes the first.
        return f"{program} {shlex.join(options)} {others}"

    def learn_hosts(self) -> None:
        """Hand on the keys of hosts that were seen for the first time."""
        if self._deploy_key is not None:
            with self._known_hosts_path.open(encoding="utf-8", errors="replace") as file:
                stored = file.read(_MAX_KNOWN_HOSTS_CHARS)
            if lines := stored.removeprefix(self._known_hosts):
                self._deploy_key.learned(lines)

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


def _lines(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ssh_path(path: Path) -> str:
    """Return a path as ssh's configuration takes it."""
    return '"' + str(path).replace("%", "%%") + '"'
