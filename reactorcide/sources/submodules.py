"""What a commit says of its submodules: where they are to be, and where they come from.

Nothing here is trusted. The places are those of the commit's tree and not of ``.gitmodules``, whose names
are not used at all.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from reactorcide.domain.errors import JobFailed

MOST_SUBMODULES = 1000
MOST_LEVELS = 10

_GITLINK = b"160000 commit "
_MOST_BYTES = 1 << 20


class Gitlinks:
    """The submodules in a commit's tree, the SHA of each by its path; at most ``most`` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.shas: dict[bytes, str] = {}

    def take(self, record: bytes) -> None:
        """Take a record of ``git ls-tree -z``. Raises ``JobFailed`` for one too many."""
        about, _, path = record.partition(b"\t")
        if about.startswith(_GITLINK):
            self.shas[path] = about.removeprefix(_GITLINK).decode("ascii")
        if len(self.shas) > self._most:
            raise JobFailed(f"git: there are more than {MOST_SUBMODULES} submodules")


class Modules:
    """What ``.gitmodules`` says of each submodule."""

    def __init__(self) -> None:
        self._by_name: dict[bytes, dict[bytes, bytes]] = {}
        self._size_bytes = 0

    def take(self, record: bytes) -> None:
        """Take a record of ``git config --list -z``. Raises ``JobFailed`` where they become too many."""
        self._size_bytes += len(record)
        if self._size_bytes > _MOST_BYTES:
            raise JobFailed("git: .gitmodules is longer than 1 MiB")
        key, _, value = record.partition(b"\n")
        section, _, rest = key.partition(b".")
        name, _, variable = rest.rpartition(b".")
        if section == b"submodule":
            self._by_name.setdefault(name, {})[variable] = value

    def by_path(self) -> dict[bytes, Mapping[bytes, bytes]]:
        """Return the variables of each submodule by its path; of two for one path the last."""
        return {module[b"path"]: module for module in self._by_name.values() if b"path" in module}


def place_of(work_tree: Path, path: str) -> Path:
    """Return the empty directory that git has made for the submodule at ``path``.

    Raises ``JobFailed`` where there is anything else: a link above all, which would lead to another place.
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
        raise JobFailed("git: its place in the work tree is no empty directory") from error
    return here


def shown(path: bytes) -> str:
    """Return a path of a repository, fit for a sentence."""
    return "".join(char if char.isprintable() else "?" for char in path.decode(errors="replace"))
