"""One checkout: a ref of a repository, with its submodules, in an empty directory."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from reactorcide.domain.errors import InfrastructureError, JobFailed
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.runs import Comparison
from reactorcide.lib.links import leads_to
from reactorcide.lib.records import record
from reactorcide.sources.git.changes import changed_paths
from reactorcide.sources.git.fetch import (
    check_out,
    fetch_blobs,
    fetch_commit,
    fetch_options,
    without_blobs,
)
from reactorcide.sources.git.program import Git
from reactorcide.sources.git.reachable import is_reachable
from reactorcide.sources.git.refs import find_target
from reactorcide.sources.git.session import GitLimits, Refusal, Session
from reactorcide.sources.git.submodules import add_submodules
from reactorcide.sources.process import Interrupt
from reactorcide.sources.urls import GitUrl, check_git_ref
from reactorcide.sources.usage import DiskLimit

_DEFAULT_LIMITS = GitLimits()
_MAX_MESSAGE_CHARS = 4096
_LINK = "120000"
"""The mode of a symbolic link in a tree."""


class _NoBlobs(Exception):
    """A server has left out contents of files, and does not send them alone."""


@record
class GitCheckout:
    """The result of ``checkout``.

    ``sha`` is the commit, in 40 digits, or in 64 if the repository uses SHA-256. ``ref`` is the short name of
    a branch or a tag, else the full ref, or the commit.
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
    limits: GitLimits = _DEFAULT_LIMITS,
    refusal: Refusal | None = None,
    shares_credentials: bool = True,
    access: GitAccess | None = None,
) -> GitCheckout:
    """Fetch ``ref`` of the repository at ``url`` and check it out in ``into``, an empty directory.

    ``ref`` is a branch, else a tag, else a full ref (``refs/…``), else a commit's SHA of 7 digits or more;
    ``None`` and ``HEAD`` are the branch that the remote's HEAD names. A branch becomes a local branch that
    tracks nothing, all else a detached HEAD; so does a branch called HEAD, which git refuses to create.

    ``depth`` is how many commits of the history are fetched, 0 for all of them, and with ``tags`` all tags
    are fetched as well, each as deep. If the server refuses to send one ref alone, all branches and tags are
    fetched with their whole history, and a commit has to be on one of them; so too for a short SHA. Both
    apply to submodules as well. Files kept by Git LFS are not fetched.

    ``check_submodule`` raises ``InvalidInput`` for the URL of a submodule that may not be used, a local
    path above all; if it is ``None`` no submodules are fetched. Else they are, recursively, each as a
    repository of its own with a detached HEAD. A repository of another host may not name one of this host.

    ``refusal`` returns why an address is refused; if it is ``None`` all are allowed. It is called for each
    address of a host, after a redirect, too, and git connects only to addresses that passed. In any case
    a repository of another host may name no submodule on a loopback address.

    Without ``shares_credentials`` submodules are fetched without credentials: neither those in ``url`` nor
    the keys of this host are used for them. So it is for the code of a stranger.

    ``access`` is what a project has for its repository. It is used as credentials in ``url`` are; a deploy
    key also for submodules of the same server.

    ``limits`` bound the memory of each process, and the disk for all fetched files.

    ``log`` gets git's output, line by line as it arrives, without credentials. ``env`` is the service's
    environment, of which only the search path, proxies, certificates and the ssh agent are used.
    ``deadline`` is in seconds of ``time.monotonic``. Credentials in ``url`` are sent to its server only, also
    for a submodule, and are in no message, no log line, no process's arguments and no file. So too for those
    in the URL of a submodule. Call ``SourceRoots.check_git_url`` before, which checks whether a job may use
    ``url`` at all.

    Raises ``JobFailed`` when a repository, the ref or the deadline is to blame, ``InvalidInput`` for a
    malformed URL or ref, ``JobInterrupted``, and ``InfrastructureError`` when git is missing or cannot work
    here. ``into`` is then incomplete: remove it. Calls for different directories may run at once.
    """
    with _opened(
        url,
        ref,
        into,
        log=log,
        interrupt=interrupt,
        deadline=deadline,
        env=env,
        options=fetch_options(depth, tags),
        limits=limits,
        refusal=refusal,
        shares_credentials=shares_credentials,
        access=access,
    ) as (git, disk):
        target, sha_digits = find_target(git, None if ref == "HEAD" else ref)
        sha = check_out(git, target, sha_digits)
        if check_submodule is not None:
            add_submodules(git, sha, check_submodule)
        disk.check()
        return GitCheckout(sha, target.name, git.url.clean)


@record
class GitFolders:
    """The result of ``check_out_folders``; ``paths`` are relative to its directory."""

    sha: str
    branch: str | None
    """The branch, if it was one."""
    default_branch: str | None
    tag: str | None
    """The tag, if it was one."""
    message: str
    """The commit's."""
    paths: Mapping[str, str]
    """The file that has the content of each path: the path itself, or what it is a link to."""
    is_reachable: bool = False
    """Whether a branch or a tag leads to it, if that was asked."""
    changed: tuple[str, ...] | None = None
    """The paths that differ from what it was compared with; ``None`` if that is not known."""


def check_out_folders(
    url: str,
    ref: str | None,
    into: Path,
    folders: Sequence[str],
    *,
    is_selected: Callable[[str], bool],
    max_paths: int,
    interrupt: Interrupt,
    deadline: float,
    env: Mapping[str, str],
    limits: GitLimits = _DEFAULT_LIMITS,
    refusal: Refusal | None = None,
    comparison: Comparison | None = None,
    access: GitAccess | None = None,
    is_compared: Callable[[Collection[str]], bool] = lambda paths: True,
    asks_reachable: bool = False,
) -> GitFolders:
    """Fetch one commit and check out only files that are directly in some folders.

    Where the server allows that, no other contents of files are fetched.

    ``is_selected`` tells whether to check out the file of a path; at most ``max_paths`` are. The other
    parameters and the errors are those of ``checkout``; ``JobFailed`` also if such a file is a link to
    anything but a regular file of the repository.

    The commit is compared if ``is_compared`` says so of the files, which are checked out.
    """
    with _opened(
        url,
        ref,
        into,
        log=lambda line: None,
        interrupt=interrupt,
        deadline=deadline,
        env=env,
        options=fetch_options(1, tags=False),
        limits=limits,
        refusal=refusal,
        access=access,
    ) as (git, disk):
        target, sha_digits = find_target(git, None if ref == "HEAD" else ref)
        try:
            sha = fetch_commit(git, target, sha_digits, *without_blobs(git.url))
            paths = _listed(git, sha, folders, is_selected, max_paths)
        except _NoBlobs:
            # A server that leaves out contents, and does not send them alone.
            shutil.rmtree(into / ".git")
            sha = fetch_commit(git, target, sha_digits)
            paths = _listed(git, sha, folders, is_selected, max_paths)
        if paths:
            literal = [f":(literal){path}" for path in paths.values()]
            git.check_run("check out the workflow files", "checkout", "--quiet", sha, "--", *literal)
        lines: list[bytes] = []
        git.check_run("read the commit", "log", "-1", "--format=%B", sha, "--", stdout=lines.append)
        changed = None
        if comparison is not None and is_compared(paths.values()):
            changed = changed_paths(git, sha, comparison, target.default_branch)
        is_named = target.branch is not None or target.tag is not None
        reachable = asks_reachable and (is_named or is_reachable(git, sha))
        disk.check()
    message = b"\n".join(lines).decode(errors="replace").strip()
    text = message[:_MAX_MESSAGE_CHARS]
    return GitFolders(sha, target.branch, target.default_branch, target.tag, text, paths, reachable, changed)


def _listed(
    git: Git, sha: str, folders: Sequence[str], is_selected: Callable[[str], bool], max_paths: int
) -> dict[str, str]:
    """Return the paths of the selected files of a commit, and the file that has the content of each.

    The contents are fetched if they were left out. Raises ``_NoBlobs`` if they cannot be had.
    """
    paths: dict[str, str] = {}
    links: dict[str, str] = {}
    blobs: set[str] = set()

    def take(record: bytes) -> None:
        about, _, name = record.decode(errors="surrogateescape").partition("\t")
        mode, kind, blob = about.split(" ")
        if kind != "blob" or not is_selected(name) or len(paths) >= max_paths:
            return
        paths[name] = name
        blobs.add(blob)
        if mode == _LINK:
            links[name] = blob

    directories = [f"{folder}/" for folder in folders]
    git.check_run(
        "list the workflow files", "ls-tree", "-z", sha, "--", *directories, stdout=take, records=True
    )
    missing = blobs & _missing_blobs(git, sha, folders) if blobs else set()
    _fetch_blobs(git, missing)
    linked = {name: _linked(git, sha, name, blob) for name, blob in links.items()}
    if missing:
        _fetch_blobs(git, {blob for _, blob in linked.values()})
    return paths | {name: path for name, (path, _) in linked.items()}


def _missing_blobs(git: Git, sha: str, folders: Sequence[str]) -> set[str]:
    """Return the contents of files in some folders of a commit that the server has left out."""
    missing = set()

    def take(line: bytes) -> None:
        if line.startswith(b"?"):
            missing.add(line[1:].decode(errors="replace"))

    listing = ("rev-list", "--objects", "--missing=print", "--no-walk", sha, "--", *folders)
    git.check_run("list what is missing", *listing, stdout=take)
    return missing


def _fetch_blobs(git: Git, blobs: set[str]) -> None:
    if blobs and not fetch_blobs(git, sorted(blobs)):
        raise _NoBlobs


def _linked(git: Git, sha: str, name: str, blob: str) -> tuple[str, str]:
    """Return the regular file of a commit that a link leads to, and its blob.

    Raises ``JobFailed`` if there is none.
    """
    text: list[bytes] = []
    git.check_run(f"read {name}", "cat-file", "blob", blob, stdout=text.append)
    path = leads_to(name, b"\n".join(text).decode(errors="surrogateescape"))
    lines: list[bytes] = []
    if path is not None:
        entry = ("ls-tree", "-z", "--full-tree", sha, "--", path)
        git.check_run(f"read {name}", *entry, stdout=lines.append, records=True)
    if path is None or len(lines) != 1 or not lines[0].startswith(b"100"):
        raise JobFailed(f"{name} is a link, but not to a regular file of the repository")
    return path, lines[0].partition(b"\t")[0].decode().split(" ")[2]


@contextmanager
def _opened(
    url: str,
    ref: str | None,
    into: Path,
    *,
    log: Callable[[bytes], None],
    interrupt: Interrupt,
    deadline: float,
    env: Mapping[str, str],
    options: tuple[str, ...],
    limits: GitLimits,
    refusal: Refusal | None,
    shares_credentials: bool = True,
    access: GitAccess | None,
) -> Iterator[tuple[Git, DiskLimit]]:
    """Yield the git for an empty directory, and the limit on its disk usage."""
    url = url if access is None else access.url(url)
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
        # Beside the checkout, where the next start removes what a service that was killed has left.
        with tempfile.TemporaryDirectory(prefix="reactorcide-git-", dir=into.parent) as home:
            disk = DiskLimit(into, limits.disk_bytes)
            session = Session(
                program,
                Path(home),
                env,
                log,
                interrupt,
                deadline,
                fetch_options=options,
                limits=limits,
                disk=disk,
                refusal=refusal,
                shares_credentials=shares_credentials,
                deploy_key=None if access is None else access.deploy_key,
            )
            yield Git(session, into, url), disk
            session.learn_hosts()
    except OSError as error:
        raise InfrastructureError(f"git could not be run: {error}") from error
