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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reactorcide.domain.errors import InfrastructureError, InvalidInput, JobFailed, ReactorcideError
from reactorcide.domain.secrets import REDACTED, url_secrets
from reactorcide.sources.process import DeadlinePassed, Interrupt, run
from reactorcide.sources.submodules import MOST_LEVELS, MOST_SUBMODULES, Gitlinks, Modules, place_of, shown
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
# They come from the environment because the list of processes shows the arguments.
_CREDENTIALS = """!f() {{ printf '%s\\n' "$GIT_SOURCE_LOGIN_{number}"; }}; f"""
_FETCH = ("--progress", "--no-recurse-submodules")
_EVERYTHING = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_SSH = "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new"

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
_NO_SPACE = re.compile(rb"^(?!remote:).*No space left on device", re.MULTILINE)
_KEPT_LINES = 20
_SHA256_DIGITS = 64
_OBJECT_IS_MISSING = 1
"""The exit code of ``git rev-parse --verify --quiet`` for a name of nothing; others are failures."""


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
            host = _Host(program, Path(home), env, log, interrupt, deadline, _fetch_options(depth, tags))
            git = _Git(host, into, url)
            made = _checkout(git, None if ref == "HEAD" else ref)
            if check_submodule is not None:
                _add_submodules(git, made.sha, check_submodule)
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
        fetch_options: tuple[str, ...],
    ) -> None:
        self.program = program
        self.fetch_options = fetch_options
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


class _Git:
    """Runs git in one work tree for one repository, and turns its failures into sentences.

    Of a submodule, ``parent`` is the repository that has it: its credentials are known here too.
    """

    def __init__(self, host: _Host, into: Path, url: str, parent: "_Git | None" = None) -> None:
        self._host = host
        self._said: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self.into = into
        self.url = GitUrl.parse(url)
        # With "/." git looks in exactly this directory. It would try <path>.git as well, which for a source
        # root is outside of it.
        self.remote = self.url.clean if self.url.local_path is None else f"{self.url.local_path}/."
        # Its own last: whoever wrote them must not be able to cut a piece out of another secret.
        secrets = [text.encode() for text in url_secrets(url)]
        self._secrets: list[bytes] = [*(parent._secrets if parent else ()), *secrets]
        # A user name alone may be no login at all: servers show such URLs for people to copy.
        own = [] if self.url.username is None else [self.url]
        others = parent._logins if parent else []
        self._logins: list[GitUrl] = [*own, *others] if self.url.password else [*others, *own]
        self._env = host.env | self._environment()

    @property
    def fetch_options(self) -> tuple[str, ...]:
        """How much of the history is to be fetched."""
        return self._host.fetch_options

    def below(self, into: Path, url: str) -> "_Git":
        """Return the git for a submodule."""
        return _Git(self._host, into, url, self)

    def _environment(self) -> dict[str, str]:
        made = {"GIT_ALLOW_PROTOCOL": ":".join(self.url.protocols)}
        # git asks each only for the server that it is for, also after a redirect, and the first one first.
        for number, login in enumerate(self._logins):
            made |= {
                f"GIT_CONFIG_KEY_{number}": f"credential.{login.server}.helper",
                f"GIT_CONFIG_VALUE_{number}": _CREDENTIALS.format(number=number),
                f"GIT_SOURCE_LOGIN_{number}": f"username={login.username}\npassword={login.password}",
            }
        return made | {"GIT_CONFIG_COUNT": str(len(self._logins))}

    def run(
        self, *arguments: str, stdout: Callable[[bytes], None] | None = None, records: bool = False
    ) -> int:
        """Run git and return its exit code; what it says on stderr is logged and kept for ``failure``."""
        self._said.clear()
        try:
            return run(
                # Named, or git would search the directories above where the work tree has no repository yet.
                [self._host.program, "--git-dir=.git", *arguments],
                cwd=self.into,
                env=self._env,
                stdout=stdout or self._hear,
                stderr=self._hear,
                interrupt=self._host.interrupt,
                deadline=self._host.deadline,
                records=records,
            )
        except DeadlinePassed as error:
            raise JobFailed(
                f"git: preparing took longer than {self._host.time_s} s and was stopped"
            ) from error

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
        line = self._masked(line)
        self._said.append(line)
        self._host.log(line + b"\n")

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

    def read(line: bytes) -> None:  # as it comes: nobody knows how many refs there are
        nonlocal default, sha_digits
        value, _, name = line.decode(errors="surrogateescape").partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            default = value.removeprefix("ref: ")
            return
        sha_digits = len(value)
        if name in names:
            found[name] = value

    git.must(f"reach {git.url}", "ls-remote", "--symref", "--", git.remote, stdout=read)
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
