"""Makes a work tree of a git repository, with the host's ``git``.

A repository and its server are not trusted: git runs with an environment and a configuration made here
alone, in which nothing that comes from outside (hooks, filters, helpers, transports) can start a program. Of
the host's own settings only those of ssh count (keys, known hosts), since ssh looks for them itself.
"""

import ipaddress
import os
import re
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from reactorcide.domain.errors import InfrastructureError, InvalidInput, JobFailed, ReactorcideError
from reactorcide.domain.secrets import REDACTED, url_secrets
from reactorcide.domain.sizes import format_size
from reactorcide.sources.addresses import Address, is_loopback, resolve
from reactorcide.sources.process import DeadlinePassed, Interrupt, ProcessLimits, run
from reactorcide.sources.submodules import MOST_LEVELS, MOST_SUBMODULES, Gitlinks, Modules, place_of, shown
from reactorcide.sources.urls import GitUrl, check_git_ref, is_sha
from reactorcide.sources.usage import DiskLimit

__all__ = ["GitCheckout", "GitLimits", "Interrupt", "checkout"]

# What is taken over from the service's environment: where programs are, and how to get out of the network.
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
# They come from the environment because the list of processes shows the arguments.
_CREDENTIALS = """!f() {{ printf '%s\\n' "$GIT_SOURCE_LOGIN_{number}"; }}; f"""
_FETCH = ("--progress", "--no-recurse-submodules")
_EVERYTHING = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_SSH = (
    "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=60 -oServerAliveInterval=30 "
    "-oServerAliveCountMax=4"
)
_HTTP = ("http", "https")
_MOST_REFS_BYTES = 64 << 20
_MOST_REDIRECTS = 5
_MOST_TRACE_BYTES = 1 << 20
_REFS = "/info/refs?service=git-upload-pack"
_NOWHERE = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737)."""
_TRACED = re.compile(rb"<= Recv header: (?:HTTP/\S+ (\d+)|location: (\S+))", re.IGNORECASE)

_KINDS = re.compile(rb"^(?:fatal|error|warning|remote): +(?:(?:fatal|error): +)?", re.IGNORECASE)
_SAYS_NOTHING = re.compile(
    rb"fatal: Could not read from remote repository\."
    rb"|Please make sure you have the correct access rights|and the repository exists\.|remote:\s*$"
    rb"|fatal: the remote end hung up unexpectedly|fatal: early EOF|fatal: error processing config file"
)
_NO_ACCESS = re.compile(
    rb"Authentication failed|could not read (?:Username|Password)|Permission denied|returned error: 403"
)
# What a server says that will not give one commit alone. Each forge has its own words after "remote error".
_NOT_ALONE = re.compile(
    rb"remote error:|not our ref|unadvertised object|does not support|could(?:n't| not) find remote ref"
)
_NO_MEMORY = re.compile(rb"[Oo]ut of memory|(?:malloc|realloc|mmap) failed|Cannot allocate memory")
_TOO_LARGE = re.compile(rb"File too large")
# What follows these is what a server has answered that is none of git's.
_NO_GIT = re.compile(rb"(bad line length character|invalid server response; got):? .*")
_SENT_ON = re.compile(rb"The requested URL returned error: 30[12378]$")
_CANNOT_RUN = (126, 127)
_NO_SPACE = re.compile(rb"^(?!remote:).*No space left on device", re.MULTILINE)
_POLL_S = 0.05
_KEPT_LINES = 20
_SHA256_DIGITS = 64
_OBJECT_IS_MISSING = 1
"""The exit code of ``git rev-parse --verify --quiet`` for a name of nothing; others are failures."""


Refusal = Callable[[Address], str | None]


@dataclass(frozen=True, slots=True)
class GitLimits:
    """What git may take of this host; 0 is no limit."""

    memory_bytes: int = 2 << 30
    """For each of its processes."""
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GitCheckout:
    """What ``checkout`` made.

    ``sha`` is the commit, in 40 digits, or in 64 where the repository uses SHA-256. ``ref`` names what was
    checked out: a branch or a tag by its short name, else the full ref, or the commit. The URL is the one
    given, fit to be shown.
    """

    sha: str
    ref: str
    url_without_credentials: str


def checkout(
    url: str,
    ref: str | None,
    into: Path,
    *,
    log: Callable[[bytes], None],
    interrupt: Interrupt,
    deadline: float,
    env: Mapping[str, str],
    check_submodule: Callable[[str], None] | None,
    depth: int = 1,
    tags: bool = False,
    limits: GitLimits = GitLimits(),
    refusal: Refusal | None = None,
) -> GitCheckout:
    """Fetch ``ref`` of the repository at ``url`` and check it out in ``into``, an empty directory.

    ``ref`` is a branch, else a tag, else a full ref (``refs/…``), else a commit's SHA of 7 digits or more;
    ``None`` and ``HEAD`` are the branch that the remote's HEAD names. A branch becomes a local branch that
    tracks nothing, all else a detached HEAD; so does a branch called HEAD, which git refuses to make.

    ``depth`` is how many commits of the history are fetched, 0 for all of them, and with ``tags`` all tags
    are fetched as well, each as deep. A server that will not give one ref alone gives all branches and tags
    with their whole history, and a commit has to be on one of them; so too for a cut SHA. Both count for
    submodules as well. Files kept by Git LFS are not fetched.

    ``check_submodule`` raises ``InvalidInput`` for the URL of a submodule that may not be used, a local
    path above all; where it is ``None`` no submodules are fetched. Else they are, and theirs, each as a
    repository of its own with a detached HEAD. A repository of another host may not name one of this host.

    ``refusal`` says what is against an address; where it is ``None`` any will do. It is asked for each
    address that the name of a host leads to, also by a redirect, and git goes to none but those. Whatever
    it says, a repository of another host may name no submodule on a loopback address.

    ``limits`` are those of the memory of each process and of the disk for all that is fetched.

    ``log`` gets what git says, line by line as it comes, without credentials. ``env`` is the service's
    environment, of which only the search path, proxies, certificates and the ssh agent are used.
    ``deadline`` is in seconds of ``time.monotonic``. Credentials in ``url`` go to its server only, be it for
    a submodule, and are in no message, no log line, no process's arguments and no file. So too for those in
    the URL of a submodule. Whether a job may use ``url`` at all, a local path above all, is for
    ``SourceRoots.check_git_url`` to say before.

    Raises ``JobFailed`` when a repository, the ref or the deadline is to blame, ``InvalidInput`` for a
    malformed URL or ref, ``JobInterrupted``, and ``InfrastructureError`` when git is missing or cannot work
    here. ``into`` is then left as it is: throw it away. Calls for different directories may run at once.
    """
    GitUrl.parse(url)
    if ref is not None:
        check_git_ref(ref)
    if any(into.iterdir()):
        raise ValueError(f"not empty: {into}")
    program = shutil.which("git", path=env.get("PATH", os.defpath))
    if program is None:
        raise InfrastructureError(
            "git is not on the service's PATH: install it on the host, or give the service a PATH to it"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="reactorcide-git-") as home:
            disk = DiskLimit(into, limits.disk_bytes)
            host = _Host(
                program,
                Path(home),
                env,
                log,
                interrupt,
                deadline,
                fetch_options=_fetch_options(depth, tags),
                limits=limits,
                disk=disk,
                refusal=refusal,
            )
            git = _Git(host, into, url)
            made = _checkout(git, None if ref == "HEAD" else ref)
            if check_submodule is not None:
                _add_submodules(git, made.sha, check_submodule)
            disk.check()
            return made
    except OSError as error:
        raise InfrastructureError(f"git could not be run: {error}") from error


@dataclass(frozen=True, slots=True)
class _Target:
    """What is to be checked out: its name for people, what to ask for, and the branch if it is one."""

    name: str
    refspec: str
    sha: str
    branch: str | None = None

    @classmethod
    def of_ref(cls, ref: str, sha: str) -> "_Target":
        if ref.startswith("refs/heads/") and ref != "refs/heads/HEAD":
            branch = ref.removeprefix("refs/heads/")
            return cls(branch, f"+{ref}:refs/remotes/origin/{branch}", sha, branch)
        if ref.startswith("refs/tags/"):
            return cls(ref.removeprefix("refs/tags/"), f"+{ref}:{ref}", sha)
        return cls(ref, ref, sha)


class _Host:
    """What git is run with for all repositories of one checkout: ``home`` holds its configuration."""

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
    ) -> None:
        self.program = program
        self.fetch_options = fetch_options
        self.limits = limits
        self.disk = disk
        self.refusal = refusal
        self.trace = home / "trace"
        self.log = log
        self.interrupt = interrupt
        self.deadline = deadline
        self.time_s = max(1, round(deadline - time.monotonic()))
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
            # A local repository may call itself incomplete and name a program that gets the rest; newer
            # versions of git refuse that by themselves.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_TERMINAL_PROMPT": "0",
        }

    def waiting_for(self, ask: Callable[[], list[Address]]) -> list[Address]:
        """Return what ``ask`` returns, or give up on it as soon as the attempt is to stop."""
        # Whoever owns a name can have the system's resolver wait, and that cannot be stopped.
        answers: list[list[Address] | OSError] = []

        def answer() -> None:
            try:
                answers.append(ask())
            except OSError as error:
                answers.append(error)

        thread = threading.Thread(target=answer, name="resolve", daemon=True)
        thread.start()
        while thread.is_alive():
            self.interrupt.check()
            if time.monotonic() >= self.deadline:
                raise self.too_late()
            thread.join(_POLL_S)
        if isinstance(answers[0], OSError):
            raise answers[0]
        return answers[0]

    def too_late(self) -> JobFailed:
        """Return what is said when the deadline has passed."""
        return JobFailed(f"git: preparing took longer than {self.time_s} s and was stopped")


class _Git:
    """Runs git in one work tree for one repository, and turns its failures into sentences.

    Of a submodule, ``parent`` is the repository that has it: its credentials are known here too.
    """

    def __init__(self, host: _Host, into: Path, url: str, parent: "_Git | None" = None) -> None:
        self._host = host
        self._parent = parent
        self._said: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self._is_asking = False
        self.into = into
        self.url = GitUrl.parse(url)
        # Its own last: whoever wrote them must not be able to cut a piece out of another secret.
        secrets = [text.encode() for text in url_secrets(url)]
        self._secrets: list[bytes] = [*(parent._secrets if parent else ()), *secrets]
        # A user name alone may be no login at all: servers show such URLs for people to copy.
        own = [] if self.url.username is None else [self.url]
        others = parent._logins if parent else []
        self._logins: list[GitUrl] = [*own, *others] if self.url.password else [*others, *own]
        self._addresses: list[Address] | None = None
        self._reach(self.url)

    def below(self, into: Path, url: str) -> "_Git":
        """Return the git for a submodule."""
        return _Git(self._host, into, url, self)

    @property
    def fetch_options(self) -> tuple[str, ...]:
        """How much of the history is to be fetched."""
        return self._host.fetch_options

    # --- where the repository is ---------------------------------------------------------------

    def _reach(self, url: GitUrl) -> None:
        """Have git go to ``url``, and only to addresses that it may go to; raises ``JobFailed``.

        A name is resolved here alone: what git is given is the address, so that what has been judged is
        where it goes.
        """
        self._at = url
        self._addresses = None
        self._env = self._host.env | self._environment({})
        # With "/." git looks in exactly this directory. It would try <path>.git as well, which for a source
        # root is outside of it.
        self.remote = url.clean if url.local_path is None else f"{url.local_path}/."
        refusals = self._refusals()
        if url.local_path is not None or not refusals:
            return
        if not url.host.isascii():
            # There are several ways to make a name for DNS of it, and git's need not be ours.
            raise JobFailed(f"git: cannot reach {url}: write the name of its host in ASCII, as xn--…")
        options = self._ssh_options(url) if url.protocols == ("ssh",) else {}
        host = options.get("hostname", url.host)
        # What goes by a proxy need have no address here.
        is_proxied = self._has_proxy(url, options)
        addresses = self._resolve(url, host, is_optional=is_proxied)
        for address in addresses:
            for refusal in refusals:
                if (problem := refusal(address)) is not None:
                    raise JobFailed(f"git: cannot reach {url}: {problem}")
        self._addresses = addresses
        if url.protocols == ("ssh",):
            if not is_proxied:
                alias = host if url.port in (None, 22) else f"[{host}]:{url.port}"
                pinned = (
                    f"-oHostName={addresses[0]}",
                    f"-oHostKeyAlias={options.get('hostkeyalias', alias)}",
                )
                self._env["GIT_SSH_COMMAND"] = f"{_SSH} {shlex.join(pinned)}"
        elif url.protocols == ("git",):
            shown = f"[{addresses[0]}]" if addresses[0].version == 6 else str(addresses[0])
            port = "" if url.port is None else f":{url.port}"
            self.remote = f"git://{shown}{port}{url.path}"
            self._env["GIT_OVERRIDE_VIRTUAL_HOST"] = url.root.removeprefix("git://")
        else:
            port_number = url.port or (443 if url.root.startswith("https:") else 80)
            where = ",".join(map(str, addresses)) or _NOWHERE
            settings = {"http.followRedirects": "false"}
            if not _is_address(url.host):
                settings["http.curloptResolve"] = f"{url.host}:{port_number}:{where}"
            self._env |= self._environment(settings)
            self._env |= {"GIT_TRACE_CURL": str(self._host.trace), "GIT_TRACE_CURL_NO_DATA": "1"}

    def _refusals(self) -> list[Refusal]:
        found: list[Refusal] = []
        rule = self._host.refusal
        if rule is not None:

            def refused(address: Address) -> str | None:
                problem = rule(address)
                return problem and (
                    f"{address} is {problem}, which only the jobs of admins may reach; "
                    f"the operator can allow it with --allow-address {address}"
                )

            found.append(refused)
        parent = self._parent
        if parent is not None and parent._at.local_path is None:

            def refused_from_elsewhere(address: Address) -> str | None:
                if is_loopback(address) and not parent._is_here():
                    return f"a repository of another host may name none on a loopback address ({address})"
                return None

            found.append(refused_from_elsewhere)
        return found

    def _is_here(self) -> bool:
        """Tell whether the repository is on this host."""
        if self._at.local_path is not None:
            return True
        if self._addresses is None:
            self._addresses = self._resolve(self._at, self._at.host, is_optional=True)
        return bool(self._addresses) and all(map(is_loopback, self._addresses))

    def _resolve(self, url: GitUrl, host: str, *, is_optional: bool) -> list[Address]:
        try:
            return self._host.waiting_for(lambda: resolve(host))
        except OSError as error:
            if is_optional:
                return []
            raise JobFailed(
                f"git: cannot reach {url}: {host} has no address ({error.strerror or error})"
            ) from error

    def _has_proxy(self, url: GitUrl, ssh_options: Mapping[str, str]) -> bool:
        if url.protocols == ("ssh",):
            return any(ssh_options.get(name, "none") != "none" for name in ("proxyjump", "proxycommand"))
        scheme = url.root.partition(":")[0]
        names = (f"{scheme}_proxy", "all_proxy")
        return any(self._env.get(name) or self._env.get(name.upper()) for name in names)

    def _ssh_options(self, url: GitUrl) -> dict[str, str]:
        """Return what ssh itself would take for this host from its configuration, such as another name."""
        program = shutil.which("ssh", path=self._env.get("PATH", os.defpath))
        if program is None:
            return {}
        lines: list[bytes] = []
        port = () if url.port is None else ("-p", str(url.port))
        code = self._process([program, "-G", *port, url.host], lines.append, lambda line: None)
        if code:
            # It is then asked for the name as it is; what is resolved here counts for more than what it says.
            return {}
        pairs = (line.decode(errors="surrogateescape").partition(" ") for line in lines)
        return {name: value for name, _, value in pairs}

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        pairs = list(settings.items())
        made = {"GIT_ALLOW_PROTOCOL": ":".join(self._at.protocols)}
        # git asks each only for the server that it is for, also after a redirect, and the first one first.
        for number, login in enumerate(self._logins):
            pairs.append((f"credential.{login.server}.helper", _CREDENTIALS.format(number=number)))
            made[f"GIT_SOURCE_LOGIN_{number}"] = f"username={login.username}\npassword={login.password}"
        for number, (name, value) in enumerate(pairs):
            made |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return made | {"GIT_CONFIG_COUNT": str(len(pairs))}

    def list_refs(self, *arguments: str, stdout: Callable[[bytes], None] | None = None) -> None:
        """Run ``git ls-remote``: what comes of a redirect is judged like the URL itself.

        What a server says in place of a list of refs is neither logged nor in the failure, which has the
        status alone: it need not be a git server, nor one that the job may ask.
        """
        for _ in range(_MOST_REDIRECTS):
            self._host.trace.unlink(missing_ok=True)
            self._is_asking = True
            try:
                code = self.run("ls-remote", *arguments, "--", self.remote, stdout=stdout or _nothing_of)
            finally:
                self._is_asking = False
            if code == 0:
                return
            target = self._redirect()
            if target is None:
                raise self._failure(f"reach {self.url}", code)
            self._reach(target)
        raise JobFailed(f"git: cannot reach {self.url}: it is sent on more than {_MOST_REDIRECTS} times")

    def _redirect(self) -> GitUrl | None:
        """Return where the last answer has sent git, if it has."""
        try:
            with self._host.trace.open("rb") as file:
                trace = file.read(_MOST_TRACE_BYTES)
        except FileNotFoundError:
            return None
        status, location = b"", b""
        for found in _TRACED.finditer(trace):
            status, location = (found[1], b"") if found[1] else (status, found[2])
        if not (status.startswith(b"3") and location):
            return None
        target = urljoin(self._at.clean + _REFS, location.decode(errors="replace"))
        base = target.removesuffix(_REFS)
        if not base.startswith(("http://", "https://")) or base == target or {"?", "#"} & set(base):
            raise JobFailed(f"git: cannot reach {self.url}: it is sent on to what is no repository")
        try:
            # Credentials in it are not used.
            return GitUrl.parse(GitUrl.parse(base).clean)
        except InvalidInput as error:
            raise JobFailed(f"git: cannot reach {self.url}: the URL that it is sent on to is bad") from error

    # --- running git ---------------------------------------------------------------------------

    def run(
        self, *arguments: str, stdout: Callable[[bytes], None] | None = None, records: bool = False
    ) -> int:
        """Run git and return its exit code; what it says on stderr is logged and kept for ``failure``."""
        self._said.clear()
        # Named, or git would search the directories above where the work tree has no repository yet.
        command = [self._host.program, "--git-dir=.git", *arguments]
        return self._process(command, stdout or self._hear, self._hear, records=records)

    def _process(
        self,
        command: list[str],
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
        *,
        records: bool = False,
    ) -> int:
        limits = self._host.limits
        try:
            return run(
                command,
                cwd=self.into,
                env=self._env,
                stdout=stdout,
                stderr=stderr,
                interrupt=self._host.interrupt,
                deadline=self._host.deadline,
                records=records,
                limits=ProcessLimits(limits.memory_bytes, limits.disk_bytes),
                watch=self._host.disk.look,
            )
        except DeadlinePassed as error:
            raise self._host.too_late() from error

    def must(
        self,
        purpose: str,
        *arguments: str,
        stdout: Callable[[bytes], None] | None = None,
        records: bool = False,
    ) -> None:
        """Run git; when it fails, raise ``JobFailed`` saying that git cannot ``purpose``, and why."""
        code = self.run(*arguments, stdout=stdout, records=records)
        if code:
            raise self._failure(purpose, code)

    def may(self, purpose: str, refusal: re.Pattern[bytes], *arguments: str) -> bool:
        """Run git and return ``True``, or ``False`` where what it says is ``refusal``; else as ``must``."""
        code = self.run(*arguments)
        if code and not any(refusal.search(line) for line in self._said):
            raise self._failure(purpose, code)
        return code == 0

    def object(self, name: str) -> str | None:
        """Return the SHA of what ``name`` leads to, if there is that."""
        lines: list[bytes] = []
        code = self.run("rev-parse", "--verify", "--quiet", name, stdout=lines.append)
        if code not in (0, _OBJECT_IS_MISSING):
            raise self._failure(f"look for {name}", code)
        return lines[0].decode() if code == 0 and lines else None

    def commit(self, name: str) -> str | None:
        """Return the SHA of the commit that ``name`` is or leads to, if there is one."""
        return self.object(f"{name}^{{commit}}")

    def say(self, line: str) -> None:
        """Add a line of our own to the log."""
        self._host.log(self._masked(line.encode(errors="surrogateescape")) + b"\n")

    def _hear(self, line: bytes) -> None:
        if self._is_asking and line.startswith(b"remote:"):
            return  # a page of whatever answers there
        line = _NO_GIT.sub(rb"\1", self._masked(line))
        self._said.append(line)
        if self._is_asking and _SENT_ON.search(line):
            return  # and asked there
        self._host.log(line + b"\n")

    def _masked(self, line: bytes) -> bytes:
        for secret in self._secrets:
            line = line.replace(secret, REDACTED.encode())
        return line

    def _failure(self, purpose: str, code: int) -> ReactorcideError:
        telling = [line for line in self._said if not _SAYS_NOTHING.match(line)] or list(self._said)
        line = telling[-1] if telling else f"it ended with code {code}".encode()
        reason = _KINDS.sub(b"", line).decode(errors="replace").strip()
        if code in _CANNOT_RUN:
            return InfrastructureError(f"git could not be run: {reason}")
        if any(_TOO_LARGE.search(line) for line in self._said):
            return self._host.disk.passed()
        if any(_NO_MEMORY.search(line) for line in self._said):
            most = format_size(self._host.limits.memory_bytes)
            return JobFailed(
                f"git: cannot {purpose}: it needs more memory than {most} (--git-memory): {reason}"
            )
        if code == -signal.SIGKILL:
            return InfrastructureError(f"git: cannot {purpose}: somebody has killed it, for memory perhaps")
        if any(_NO_SPACE.match(line) for line in self._said):
            return InfrastructureError(f"git: cannot {purpose}: {reason}")
        if any(_NO_ACCESS.search(line) for line in self._said):
            return JobFailed(f"git: cannot {purpose}: access was denied ({reason})")
        return JobFailed(f"git: cannot {purpose}: {reason}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _nothing_of(line: bytes) -> None:
    """Take a line that nobody needs."""


def _fetch_options(depth: int, tags: bool) -> tuple[str, ...]:
    # Of a repository that is shallow itself, all that it has is its whole history.
    how_deep = f"--depth={depth}" if depth else "--update-shallow"
    return *_FETCH, how_deep, "--tags" if tags else "--no-tags"


def _checkout(git: _Git, wanted: str | None) -> GitCheckout:
    target, sha_digits = _find(git, wanted)
    return GitCheckout(_take(git, target, sha_digits), target.name, git.url.clean)


def _find(git: _Git, wanted: str | None) -> tuple[_Target, int]:
    """Ask the server which refs it has, and choose; a SHA that is none of them is taken on trust.

    Return with it how many digits a whole SHA has in that repository.
    """
    names = ["HEAD"] if wanted is None else [f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted]
    found: dict[str, str] = {}
    default = ""
    sha_digits = 0
    size_bytes = 0

    def read(line: bytes) -> None:  # as it comes: nobody knows how many refs there are
        nonlocal default, sha_digits, size_bytes
        size_bytes += len(line)
        if size_bytes > _MOST_REFS_BYTES:
            raise JobFailed(f"git: {git.url} has more than {format_size(_MOST_REFS_BYTES)} of refs")
        value, _, name = line.decode(errors="surrogateescape").partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            default = value.removeprefix("ref: ")
            return
        sha_digits = len(value)
        if name in names:
            found[name] = value

    git.list_refs("--symref", stdout=read)
    if not sha_digits:
        raise JobFailed(f"git: {git.url} is empty: it has no commit yet")
    if wanted is None:
        if "HEAD" not in found:
            raise JobFailed(f"git: {git.url} has no default branch, so git_ref has to name one")
        return _Target.of_ref(default if _is_safe_branch(default) else "HEAD", found["HEAD"]), sha_digits
    for name in names:
        if name in found:
            return _Target.of_ref(name, found[name]), sha_digits
    if is_sha(wanted) and len(wanted) <= sha_digits:
        return _Target(wanted.lower(), wanted.lower(), wanted.lower()), sha_digits
    raise _nothing(git.url, wanted)


def _fetch(git: _Git, target: _Target, sha_digits: int) -> str:
    """Fetch ``target``, alone if the server lets us, and return the SHA of its commit."""
    reach = f"reach {git.url}"
    if len(target.sha) == sha_digits:
        # Refused by servers that give only the tips of refs, or, with plain files over HTTP, only everything.
        if git.may(reach, _NOT_ALONE, "fetch", *git.fetch_options, "--", git.remote, target.refspec):
            sha = git.commit("FETCH_HEAD")
            if sha is None:
                raise JobFailed(f'git: "{target.name}" in {git.url} is not a commit')
            return sha
        git.say(f"git: cannot fetch {target.name} alone, so all branches and tags are fetched")
    git.must(reach, "fetch", *_fetch_options(depth=0, tags=False), "--", git.remote, *_EVERYTHING)
    sha = git.commit(target.sha)
    if sha is None:
        raise _nothing(git.url, target.name)
    return sha


def _take(git: _Git, target: _Target, sha_digits: int) -> str:
    """Make a repository, fetch ``target`` into it and check that out; return the SHA of its commit."""
    of_format = ("--object-format=sha256",) if sha_digits == _SHA256_DIGITS else ()
    git.must("make a repository", "init", "--quiet", *of_format)
    git.must("name the origin", "remote", "add", "--", "origin", git.url.clean)
    sha = _fetch(git, target, sha_digits)
    place = ("--detach",) if target.branch is None else ("-B", target.branch)
    git.must(f"check out {target.name}", "checkout", "--quiet", "--force", *place, sha, "--")
    return sha


def _is_safe_branch(ref: str) -> bool:
    """Tell whether what the server calls its default branch may be used as a name here."""
    try:
        check_git_ref(ref.removeprefix("refs/heads/"))
    except InvalidInput:
        return False
    return ref.startswith("refs/heads/")


def _nothing(url: GitUrl, wanted: str) -> JobFailed:
    return JobFailed(f'git: no branch, tag or commit "{wanted}" in {url}')


@dataclass(frozen=True, slots=True)
class _WorkTree:
    """One of which the submodules are still to be fetched; ``path`` is where it is below the first one."""

    git: _Git
    sha: str
    path: bytes = b""
    level: int = 0


def _add_submodules(git: _Git, sha: str, check: Callable[[str], None]) -> None:
    """Fetch the submodules of the commit that is checked out, and theirs, into the places they have."""
    pending = deque([_WorkTree(git, sha)])
    left = MOST_SUBMODULES
    while pending:
        here = pending.popleft()
        with _about(here.path):
            links, modules = _listed(here, left)
        left -= len(links)
        for link, commit in links.items():
            path = here.path + b"/" + link if here.path else link
            module = modules.get(link, {})
            if not module.get(b"url") or module.get(b"update") == b"none":
                why = "update is none" if module.get(b"url") else "it has no URL"
                git.say(f'git: submodule "{shown(path)}" stays empty: {why} in .gitmodules')
                continue
            with _about(path):
                url = _checked_url(here, os.fsdecode(module[b"url"]), check)
                inner = here.git.below(place_of(here.git.into, os.fsdecode(link)), url)
                inner.say(f'git: submodule "{shown(path)}" of {inner.url}')
                if inner.url.protocols == _HTTP:
                    # Where it really is: what is fetched there follows no further redirect.
                    inner.list_refs("--heads")
                found = _take(inner, _Target(commit, commit, commit), len(commit))
            pending.append(_WorkTree(inner, found, path, here.level + 1))


def _listed(here: _WorkTree, most: int) -> tuple[dict[bytes, str], Mapping[bytes, Mapping[bytes, bytes]]]:
    """Return the submodules of a commit, and what its ``.gitmodules`` says of them, each by its path."""
    links, modules = Gitlinks(most), Modules()
    # With -d only directories and submodules: no list of all the files.
    tree = ("ls-tree", "-r", "-d", "-z", "--full-tree", here.sha)
    here.git.must("list the submodules", *tree, stdout=links.take, records=True)
    file = f"{here.sha}:.gitmodules"
    if links.shas and here.git.object(file) is not None:
        # It could include any file of this host.
        listing = ("config", "--no-includes", "--list", "-z", "--blob", file)
        here.git.must("read .gitmodules", *listing, stdout=modules.take, records=True)
    return links.shas, modules.by_path()


def _checked_url(here: _WorkTree, given: str, check: Callable[[str], None]) -> str:
    """Return the URL of a submodule, which may be one relative to its parent's, if it may be used."""
    if here.level == MOST_LEVELS:
        raise JobFailed(f"git: submodules are nested more than {MOST_LEVELS} deep")
    try:
        url = here.git.url.of_submodule(given)
        if GitUrl.parse(url).local_path is not None and here.git.url.local_path is None:
            raise JobFailed("git: a repository of another host may not name one of this host")
        check(url)
    except InvalidInput as error:
        raise JobFailed("git: its " + str(error).removeprefix("git_")) from error
    return url


@contextmanager
def _about(path: bytes) -> Iterator[None]:
    """Have the sentence of a failure name the submodule at ``path`` that it is about."""
    try:
        yield
    except JobFailed as error:
        if not path:
            raise
        raise JobFailed(f'git: submodule "{shown(path)}": {str(error).removeprefix("git: ")}') from error
