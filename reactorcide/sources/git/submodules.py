"""Fetching the submodules of a commit.

The contents of the commit are not trusted. Paths come from the commit's tree, not from ``.gitmodules``, whose
names are not used at all.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from reactorcide.domain.errors import InvalidInput, JobFailed
from reactorcide.lib.records import record
from reactorcide.sources.git.fetch import check_out
from reactorcide.sources.git.program import Git
from reactorcide.sources.git.refs import Target
from reactorcide.sources.urls import GitUrl

MAX_SUBMODULES = 1000
MAX_LEVELS = 10

_GITLINK = b"160000 commit "
_MAX_BYTES = 1 << 20
_HTTP = ("http", "https")


@record
class _WorkTree:
    """A work tree that has no submodules yet; ``path`` is its place below the first one."""

    git: Git
    sha: str
    path: bytes = b""
    level: int = 0


def add_submodules(git: Git, sha: str, check: Callable[[str], None]) -> None:
    """Fetch the submodules of the checked out commit, recursively, into their places."""
    pending = deque([_WorkTree(git, sha)])
    remaining = MAX_SUBMODULES
    while pending:
        here = pending.popleft()
        with _about(here.path):
            links, modules = _listed(here, remaining)
        remaining -= len(links)
        for link, commit in links.items():
            path = here.path + b"/" + link if here.path else link
            module = modules.get(link, {})
            if not module.get(b"url") or module.get(b"update") == b"none":
                reason = "update is none" if module.get(b"url") else "it has no URL"
                git.log(f'git: submodule "{printable(path)}" stays empty: {reason} in .gitmodules')
                continue
            with _about(path):
                url = _checked_url(here, os.fsdecode(module[b"url"]), check)
                inner = here.git.for_submodule(place_of(here.git.into, os.fsdecode(link)), url)
                inner.log(f'git: submodule "{printable(path)}" of {inner.url}')
                if inner.url.protocols == _HTTP:
                    # Follows redirects to the real URL: the fetch from there follows no more.
                    inner.list_refs("--heads")
                inner_sha = check_out(inner, Target(commit, commit, commit), len(commit))
            pending.append(_WorkTree(inner, inner_sha, path, here.level + 1))


def _listed(
    here: _WorkTree, max_links: int
) -> tuple[dict[bytes, str], Mapping[bytes, Mapping[bytes, bytes]]]:
    """Return the submodules of a commit, and their variables in ``.gitmodules``, each by its path."""
    links, modules = Gitlinks(max_links), Modules()
    # With -d only directories and submodules: no list of all the files.
    tree = ("ls-tree", "-r", "-d", "-z", "--full-tree", here.sha)
    here.git.check_run("list the submodules", *tree, stdout=links.take, records=True)
    file = f"{here.sha}:.gitmodules"
    if links.shas and here.git.object(file) is not None:
        # Without --no-includes it could include any file of this host.
        listing = ("config", "--no-includes", "--list", "-z", "--blob", file)
        here.git.check_run("read .gitmodules", *listing, stdout=modules.take, records=True)
    return links.shas, modules.by_path()


def _checked_url(here: _WorkTree, text: str, check: Callable[[str], None]) -> str:
    """Return the URL of a submodule, resolved against its parent's; raises ``JobFailed`` if it is refused."""
    if here.level == MAX_LEVELS:
        raise JobFailed(f"git: submodules are nested more than {MAX_LEVELS} deep")
    try:
        url = here.git.url.of_submodule(text)
        if GitUrl.parse(url).local_path is not None and here.git.url.local_path is None:
            raise JobFailed("git: a repository of another host may not name one of this host")
        check(url)
    except InvalidInput as error:
        raise JobFailed("git: its " + str(error).removeprefix("git_")) from error
    return url


@contextmanager
def _about(path: bytes) -> Iterator[None]:
    """Add the submodule at ``path`` to the message of a failure in the body."""
    try:
        yield
    except JobFailed as error:
        if not path:
            raise
        raise JobFailed(f'git: submodule "{printable(path)}": {str(error).removeprefix("git: ")}') from error


class Gitlinks:
    """The submodules in a commit's tree, the SHA of each by its path; at most ``max_links``."""

    def __init__(self, max_links: int) -> None:
        self._max_links = max_links
        self.shas: dict[bytes, str] = {}

    def take(self, record: bytes) -> None:
        """Take a record of ``git ls-tree -z``. Raises ``JobFailed`` if there are too many."""
        about, _, path = record.partition(b"\t")
        if about.startswith(_GITLINK):
            self.shas[path] = about.removeprefix(_GITLINK).decode("ascii")
        if len(self.shas) > self._max_links:
            raise JobFailed(f"git: there are more than {MAX_SUBMODULES} submodules")


class Modules:
    """The variables of each submodule in ``.gitmodules``."""

    def __init__(self) -> None:
        self._by_name: dict[bytes, dict[bytes, bytes]] = {}
        self._size_bytes = 0

    def take(self, record: bytes) -> None:
        """Take a record of ``git config --list -z``. Raises ``JobFailed`` if there are too many bytes."""
        self._size_bytes += len(record)
        if self._size_bytes > _MAX_BYTES:
            raise JobFailed("git: .gitmodules is longer than 1 MiB")
        key, _, value = record.partition(b"\n")
        section, _, rest = key.partition(b".")
        name, _, variable = rest.rpartition(b".")
        if section == b"submodule":
            self._by_name.setdefault(name, {})[variable] = value

    def by_path(self) -> dict[bytes, Mapping[bytes, bytes]]:
        """Return the variables of each submodule by its path; of two with the same path, the last."""
        return {module[b"path"]: module for module in self._by_name.values() if b"path" in module}


def place_of(work_tree: Path, path: str) -> Path:
    """Return the empty directory that git created for the submodule at ``path``.

    Raises ``JobFailed`` for anything else, above all a link, which would lead to another place.
    """
    here = work_tree
    try:
        for part in path.split("/"):
            here = here / part
            if part.lower() in ("", ".", "..", ".git") or not stat.S_ISDIR(os.lstat(here).st_mode):
                raise NotADirectoryError
        if any(here.iterdir()):
            raise FileExistsError
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise JobFailed("git: its place in the work tree is not an empty directory") from error
    return here


def printable(path: bytes) -> str:
    """Return a path of a repository in printable form."""
    return "".join(char if char.isprintable() else "?" for char in path.decode(errors="replace"))
