"""Running git in one work tree, and translating its failures."""

import re
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from reactorcide.domain.errors import InfrastructureError, JobFailed, ReactorcideError
from reactorcide.domain.secrets import REDACTED, url_secrets
from reactorcide.lib.sizes import format_size
from reactorcide.sources.git.remote import Remote
from reactorcide.sources.git.session import Session
from reactorcide.sources.urls import GitUrl

_MAX_REDIRECTS = 5
_STDERR_LINES = 20
_OBJECT_IS_MISSING = 1
"""The exit code of ``git rev-parse --verify --quiet`` for an unknown name; others are failures."""

_KINDS = re.compile(rb"^(?:fatal|error|warning|remote): +(?:(?:fatal|error): +)?", re.IGNORECASE)
_UNINFORMATIVE = re.compile(
    rb"fatal: Could not read from remote repository\."
    rb"|Please make sure you have the correct access rights|and the repository exists\.|remote:\s*$"
    rb"|fatal: the remote end hung up unexpectedly|fatal: early EOF|fatal: error processing config file"
)
_NO_ACCESS = re.compile(
    rb"Authentication failed|could not read (?:Username|Password)|Permission denied|returned error: 403"
)
_NO_MEMORY = re.compile(rb"[Oo]ut of memory|(?:malloc|realloc|mmap) failed|Cannot allocate memory")
_TOO_LARGE = re.compile(rb"File too large")
# The text after these is the answer of a server that is not a git server.
_NO_GIT = re.compile(rb"(bad line length character|invalid server response; got):? .*")
_REDIRECTED = re.compile(rb"The requested URL returned error: 30[12378]$")
_CANNOT_RUN = (126, 127)
_NO_SPACE = re.compile(rb"^(?!remote:).*No space left on device", re.MULTILINE)


class Git:
    """Git in the work tree ``into``, for the repository at ``url``.

    For a submodule, ``parent`` is the git of the repository that has it: its credentials are masked, too.
    """

    def __init__(self, session: Session, into: Path, url: str, parent: "Git | None" = None) -> None:
        self._session = session
        self._stderr: deque[bytes] = deque(maxlen=_STDERR_LINES)
        self._is_listing = False
        self.into = into
        # Its own last: their author must not be able to cut a piece out of another secret.
        secrets = [text.encode() for text in url_secrets(url)]
        self._secrets: list[bytes] = [*(parent._secrets if parent else ()), *secrets]
        self._remote: Remote = Remote(session, into, url, parent._remote if parent else None)

    def for_submodule(self, into: Path, url: str) -> "Git":
        """Return the git for a submodule."""
        return Git(self._session, into, url, self)

    @property
    def url(self) -> GitUrl:
        """The repository's URL, before any redirect."""
        return self._remote.url

    @property
    def remote(self) -> str:
        """The argument that names the repository to git."""
        return self._remote.argument

    @property
    def fetch_options(self) -> tuple[str, ...]:
        """The options for how much of the history to fetch."""
        return self._session.fetch_options

    def list_refs(self, *arguments: str, stdout: Callable[[bytes], None] = lambda line: None) -> None:
        """Run ``git ls-remote``; the target of a redirect is checked like the URL itself.

        If a server sends anything else than refs, that is neither logged nor in the error, which has only the
        status: it may not be a git server, or one that the job may not use.
        """
        for _ in range(_MAX_REDIRECTS):
            self._session.trace.unlink(missing_ok=True)
            self._is_listing = True
            try:
                code = self.run("ls-remote", *arguments, "--", self.remote, stdout=stdout)
            finally:
                self._is_listing = False
            if code == 0:
                return
            if not self._remote.follow_redirect():
                raise self._failure(f"reach {self.url}", code)
        raise JobFailed(f"git: cannot reach {self.url}: it was redirected more than {_MAX_REDIRECTS} times")

    def run(
        self, *arguments: str, stdout: Callable[[bytes], None] | None = None, records: bool = False
    ) -> int:
        """Run git and return its exit code; stderr is logged, and its last lines are kept for an error."""
        self._stderr.clear()
        # Without --git-dir git would search the parent directories while the work tree has no repository.
        command = [self._session.program, "--git-dir=.git", *arguments]
        return self._session.run(
            command,
            cwd=self.into,
            env=self._remote.env,
            stdout=stdout or self._take_line,
            stderr=self._take_line,
            records=records,
        )

    def check_run(
        self,
        purpose: str,
        *arguments: str,
        stdout: Callable[[bytes], None] | None = None,
        records: bool = False,
    ) -> None:
        """Run git; raises ``JobFailed`` with ``purpose`` and the reason if it fails."""
        code = self.run(*arguments, stdout=stdout, records=records)
        if code:
            raise self._failure(purpose, code)

    def try_run(self, purpose: str, refusal: re.Pattern[bytes], *arguments: str) -> bool:
        """Like ``check_run``, but return ``False`` if git fails with an error that matches ``refusal``."""
        code = self.run(*arguments)
        if code and not any(refusal.search(line) for line in self._stderr):
            raise self._failure(purpose, code)
        return code == 0

    def object(self, name: str) -> str | None:
        """Return the SHA of the object that ``name`` denotes, if it exists."""
        lines: list[bytes] = []
        code = self.run("rev-parse", "--verify", "--quiet", name, stdout=lines.append)
        if code not in (0, _OBJECT_IS_MISSING):
            raise self._failure(f"look for {name}", code)
        return lines[0].decode() if code == 0 and lines else None

    def commit(self, name: str) -> str | None:
        """Return the SHA of the commit that ``name`` denotes, if it exists."""
        return self.object(f"{name}^{{commit}}")

    def log(self, line: str) -> None:
        """Add a line of the service to the log."""
        self._session.log(self._masked(line.encode(errors="surrogateescape")) + b"\n")

    def _take_line(self, line: bytes) -> None:
        if self._is_listing and line.startswith(b"remote:"):
            return  # perhaps a page of a server that is not a git server
        line = _NO_GIT.sub(rb"\1", self._masked(line))
        self._stderr.append(line)
        if self._is_listing and _REDIRECTED.search(line):
            return  # ``list_refs`` follows it
        self._session.log(line + b"\n")

    def _masked(self, line: bytes) -> bytes:
        for secret in self._secrets:
            line = line.replace(secret, REDACTED.encode())
        return line

    def _failure(self, purpose: str, code: int) -> ReactorcideError:
        lines = [line for line in self._stderr if not _UNINFORMATIVE.match(line)] or list(self._stderr)
        line = lines[-1] if lines else f"it ended with code {code}".encode()
        reason = _KINDS.sub(b"", line).decode(errors="replace").strip()
        if code in _CANNOT_RUN:
            return InfrastructureError(f"git could not be run: {reason}")
        if any(_TOO_LARGE.search(line) for line in self._stderr):
            return self._session.disk.error()
        if any(_NO_MEMORY.search(line) for line in self._stderr):
            limit = format_size(self._session.limits.memory_bytes)
            return JobFailed(
                f"git: cannot {purpose}: it needs more memory than {limit} (--git-memory): {reason}"
            )
        if code == -signal.SIGKILL:
            return InfrastructureError(f"git: cannot {purpose}: it was killed, perhaps for lack of memory")
        if any(_NO_SPACE.match(line) for line in self._stderr):
            return InfrastructureError(f"git: cannot {purpose}: {reason}")
        if any(_NO_ACCESS.search(line) for line in self._stderr):
            return JobFailed(f"git: cannot {purpose}: access was denied ({reason})")
        return JobFailed(f"git: cannot {purpose}: {reason}")
