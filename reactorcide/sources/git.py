"""Makes a work tree of a git repository, with the host's ``git``.

A repository and its server are not trusted: git runs with an environment and a configuration made here
alone, in which nothing that comes from outside (hooks, filters, helpers, transports) can start a program. Of
the host's own settings only those of ssh count (keys, known hosts), since ssh looks for them itself.
"""

import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reactorcide.domain.errors import InfrastructureError, InvalidInput, JobFailed, ReactorcideError
from reactorcide.domain.secrets import REDACTED, url_secrets
from reactorcide.sources.process import DeadlinePassed, Interrupt, run
from reactorcide.sources.urls import GitUrl, check_git_ref, is_sha

__all__ = ["GitCheckout", "Interrupt", "checkout"]

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
[gc]
	auto = 0
[maintenance]
	auto = false
[submodule]
	recurse = false
[advice]
	detachedHead = false
"""
# git asks this only for the server that the credentials are for, also after a redirect; they come from
# the environment because the list of processes shows the arguments.
_CREDENTIALS = """\
[credential "{server}"]
	helper = "!f() {{ printf '%s\\\\n' \\"$GIT_SOURCE_LOGIN\\"; }}; f"
"""
_FETCH = ("--progress", "--no-tags", "--no-recurse-submodules")
_EVERYTHING = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_SSH = "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new"

_KINDS = re.compile(rb"^(?:fatal|error|warning|remote): +(?:(?:fatal|error): +)?", re.IGNORECASE)
_SAYS_NOTHING = re.compile(
    rb"fatal: Could not read from remote repository\."
    rb"|Please make sure you have the correct access rights|and the repository exists\.|remote:\s*$"
    rb"|fatal: the remote end hung up unexpectedly|fatal: early EOF"
)
_NO_ACCESS = re.compile(
    rb"Authentication failed|could not read (?:Username|Password)|Permission denied|returned error: 403"
)
_NO_SPACE = re.compile(rb"^(?!remote:).*No space left on device", re.MULTILINE)
_KEPT_LINES = 20
_SHA_DIGITS = 40


@dataclass(frozen=True, slots=True)
class GitCheckout:
    """What ``checkout`` made.

    ``sha`` is the commit, in 40 digits. ``ref`` names what was checked out: a branch or a tag by its
    short name, else the full ref, or the commit. The URL is the one given, fit to be shown.
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
) -> GitCheckout:
    """Fetch ``ref`` of the repository at ``url`` and check it out in ``into``, an empty directory.

    ``ref`` is a branch, else a tag, else a full ref (``refs/…``), else a commit's SHA of 7 to 40 digits;
    ``None`` is the branch that the remote's HEAD names. A branch becomes a local branch that tracks
    nothing, all else a detached HEAD. Only that one commit is fetched, unless the server will not give it
    alone: then all branches and tags are, and a commit has to be on one of them; so too for a cut SHA.
    Submodules and files kept by Git LFS are not fetched.

    ``log`` gets what git says, line by line as it comes, without credentials. ``env`` is the service's
    environment, of which only the search path, proxies, certificates and the ssh agent are used.
    ``deadline`` is in seconds of ``time.monotonic``. Credentials in ``url`` go to its server only, and are
    in no message, no log line, no process's arguments and no file. Whether a job may use ``url`` at all, a
    local path above all, is for ``SourceRoots.check_git_url`` to say before.

    Raises ``JobFailed`` when the repository, the ref or the deadline is to blame, ``InvalidInput`` for a
    malformed URL or ref, ``JobInterrupted``, and ``InfrastructureError`` when git is missing or cannot work
    here. ``into`` is then left as it is: throw it away. Calls for different directories may run at once.
    """
    parsed = GitUrl.parse(url)
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
            git = _Git(program, into, _environment(parsed, Path(home), env), url, log, interrupt, deadline)
            return _checkout(git, parsed, None if ref == "HEAD" else ref)
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
        if ref.startswith("refs/heads/"):
            branch = ref.removeprefix("refs/heads/")
            return cls(branch, f"+{ref}:refs/remotes/origin/{branch}", sha, branch)
        if ref.startswith("refs/tags/"):
            return cls(ref.removeprefix("refs/tags/"), f"+{ref}:{ref}", sha)
        return cls(ref, ref, sha)


class _Git:
    """Runs git in one work tree for one repository, and turns its failures into sentences."""

    def __init__(
        self,
        program: str,
        into: Path,
        env: Mapping[str, str],
        url: str,
        log: Callable[[bytes], None],
        interrupt: Interrupt,
        deadline: float,
    ) -> None:
        self._program = program
        self._into = into
        self._env = env
        self._secrets = [text.encode() for text in url_secrets(url)]
        self._log = log
        self._interrupt = interrupt
        self._deadline = deadline
        self._time_s = max(1, round(deadline - time.monotonic()))
        self._said: deque[bytes] = deque(maxlen=_KEPT_LINES)

    def run(self, *arguments: str, stdout: Callable[[bytes], None] | None = None) -> int:
        """Run git and return its exit code; what it says on stderr is logged and kept for ``failure``."""
        self._said.clear()
        try:
            return run(
                # Named, or git would search the directories above where the work tree has no repository yet.
                [self._program, "--git-dir=.git", *arguments],
                cwd=self._into,
                env=self._env,
                stdout=stdout or self._hear,
                stderr=self._hear,
                interrupt=self._interrupt,
                deadline=self._deadline,
            )
        except DeadlinePassed as error:
            raise JobFailed(f"git: preparing took longer than {self._time_s} s and was stopped") from error

    def must(self, purpose: str, *arguments: str, stdout: Callable[[bytes], None] | None = None) -> None:
        """Run git; when it fails, raise ``JobFailed`` saying that git cannot ``purpose``, and why."""
        code = self.run(*arguments, stdout=stdout)
        if code:
            raise self._failure(purpose, code)

    def commit(self, name: str) -> str | None:
        """Return the SHA of the commit that ``name`` is or leads to, if there is one."""
        lines: list[bytes] = []
        code = self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", stdout=lines.append)
        return lines[0].decode() if code == 0 and lines else None

    def say(self, line: str) -> None:
        """Add a line of our own to the log."""
        self._log(self._masked(line.encode(errors="surrogateescape")) + b"\n")

    def _hear(self, line: bytes) -> None:
        line = self._masked(line)
        self._said.append(line)
        self._log(line + b"\n")

    def _masked(self, line: bytes) -> bytes:
        for secret in self._secrets:
            line = line.replace(secret, REDACTED.encode())
        return line

    def _failure(self, purpose: str, code: int) -> ReactorcideError:
        telling = [line for line in self._said if not _SAYS_NOTHING.match(line)] or list(self._said)
        line = telling[-1] if telling else f"it ended with code {code}".encode()
        reason = _KINDS.sub(b"", line).decode(errors="replace").strip()
        if any(_NO_SPACE.match(line) for line in self._said):
            return InfrastructureError(f"git: cannot {purpose}: {reason}")
        if any(_NO_ACCESS.search(line) for line in self._said):
            return JobFailed(f"git: cannot {purpose}: access was denied ({reason})")
        return JobFailed(f"git: cannot {purpose}: {reason}")


def _checkout(git: _Git, url: GitUrl, wanted: str | None) -> GitCheckout:
    # With "/." git looks in exactly this directory. It would try <path>.git as well, which for a source root
    # is outside of it.
    remote = url.clean if url.local_path is None else f"{url.local_path}/."
    git.must("make a repository", "init", "--quiet")
    git.must("name the origin", "remote", "add", "--", "origin", url.clean)
    target = _find(git, url, remote, wanted)
    sha = _fetch(git, url, remote, target)
    place = ("--detach",) if target.branch is None else ("-B", target.branch)
    git.must(f"check out {target.name}", "checkout", "--quiet", "--force", *place, sha, "--")
    return GitCheckout(sha, target.name, url.clean)


def _find(git: _Git, url: GitUrl, remote: str, wanted: str | None) -> _Target:
    """Ask the server which refs it has, and choose; a SHA that is none of them is taken on trust."""
    names = ["HEAD"] if wanted is None else [f"refs/heads/{wanted}", f"refs/tags/{wanted}", wanted]
    found: dict[str, str] = {}
    default = ""
    is_empty = True

    def read(line: bytes) -> None:  # as it comes: nobody knows how many refs there are
        nonlocal default, is_empty
        is_empty = False
        value, _, name = line.decode(errors="surrogateescape").partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            default = value.removeprefix("ref: ")
        elif name in names:
            found[name] = value

    git.must(f"reach {url}", "ls-remote", "--symref", "--", remote, stdout=read)
    if is_empty:
        raise JobFailed(f"git: {url} is empty: it has no commit yet")
    if wanted is None:
        if "HEAD" not in found:
            raise JobFailed(f"git: {url} has no default branch, so git_ref has to name one")
        return _Target.of_ref(default if _is_safe_branch(default) else "HEAD", found["HEAD"])
    for name in names:
        if name in found:
            return _Target.of_ref(name, found[name])
    if is_sha(wanted):
        return _Target(wanted.lower(), wanted.lower(), wanted.lower())
    raise _nothing(url, wanted)


def _fetch(git: _Git, url: GitUrl, remote: str, target: _Target) -> str:
    """Fetch ``target``, alone if the server lets us, and return the SHA of its commit."""
    if len(target.sha) == _SHA_DIGITS:
        # Refused by servers that give only the tips of refs, or, with plain files over HTTP, only everything.
        if git.run("fetch", *_FETCH, "--depth=1", "--", remote, target.refspec) == 0:
            sha = git.commit("FETCH_HEAD")
            if sha is None:
                raise JobFailed(f'git: "{target.name}" in {url} is not a commit')
            return sha
        git.say(f"git: cannot fetch {target.name} alone, so all branches and tags are fetched")
    git.must(f"reach {url}", "fetch", *_FETCH, "--update-shallow", "--", remote, *_EVERYTHING)
    sha = git.commit(target.sha)
    if sha is None:
        raise _nothing(url, target.name)
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


def _environment(url: GitUrl, home: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return git's whole environment, and write the one configuration it reads into ``home``."""
    path = home / "config"
    config = _CONFIG
    made = {
        **{name: value for name, value in env.items() if name in _PASSED_ON},
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GIT_ALLOW_PROTOCOL": ":".join(url.protocols),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(path),
        "GIT_CONFIG_NOSYSTEM": "1",
        # A local repository may call itself incomplete and name a program that gets the rest; newer
        # versions of git refuse that by themselves.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_SSH_COMMAND": _SSH,
        "GIT_TERMINAL_PROMPT": "0",
    }
    if url.username is not None:
        config += _CREDENTIALS.format(server=url.server)
        made["GIT_SOURCE_LOGIN"] = f"username={url.username}\npassword={url.password}"
    path.write_text(config, encoding="utf-8")
    return made
