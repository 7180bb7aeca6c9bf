"""The directories of this host that jobs may take files from."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reactorcide.domain.errors import InfrastructureError, InvalidInput
from reactorcide.sources.repositories import places
from reactorcide.sources.urls import GitUrl

# Too many open files, no memory, a disk or a network file system that fails: none of it means "not there".
_TROUBLE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}

Identity = tuple[int, int]  # (st_dev, st_ino): the same directory under whatever path


@dataclass(frozen=True, slots=True)
class SourceDirectory:
    """A directory to read: ``root``, which the operator vouches for, and the ``parts`` below it.

    ``root`` and ``parts`` are free of symbolic links and ``..`` when made by ``SourceRoots``; ``archive``
    descends ``parts`` without following any link that has come up since.
    """

    root: Path
    parts: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The whole path."""
        return self.root.joinpath(*self.parts)


class SourceRoots:
    """Decides which directories may be read: those below ``roots``, never the ``forbidden`` one.

    ``forbidden`` is the service's data directory, which holds every job's logs and the admin's
    token. Nothing is cached, since the file system changes: check when a job comes in and again when it runs.
    Thread-safe.
    """

    def __init__(self, roots: Sequence[Path], forbidden: Path | None) -> None:
        self._roots = tuple(roots)
        self._forbidden = forbidden

    def resolve(self, source_path: str) -> SourceDirectory:
        """Return the directory that ``source_path`` (absolute, or relative to the first root) leads to.

        Raises ``InvalidInput`` for ``source_path``, in the same words whether there is nothing, something
        that is no directory, or something outside the roots: what lies outside is not to be probed.
        """
        found = self._locate(source_path)
        if found is None:
            raise self._refused("source_path", "directory")
        return found

    def check_git_url(self, url: str) -> None:
        """Raise ``InvalidInput`` for ``git_url`` unless ``url`` is one that a job may clone.

        A path or ``file://`` URL has to lead to a directory below a root, as in ``resolve``, and so has all
        that the repository there refers to.
        """
        path = GitUrl.parse(url).local_path
        if path is not None and not self._holds_repository(path):
            raise self._refused("git_url", "repository")

    def forbidden_identity(self) -> Identity | None:
        """Return (st_dev, st_ino) of the forbidden directory, if it exists: what ``archive`` leaves out."""
        if self._forbidden is None:
            return None
        try:
            status = self._forbidden.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InfrastructureError(
                f"the data directory {self._forbidden} cannot be looked at: {error.strerror}"
            ) from error
        return status.st_dev, status.st_ino

    def _refused(self, field: str, kind: str) -> InvalidInput:
        problem = f"{field} must lead to a {kind} below one of the server's source roots"
        if not self._roots:
            problem += ", and it has none: its operator can name some with --source-root"
        return InvalidInput(problem, field=field)

    def _holds_repository(self, text: str) -> bool:
        found = self._locate(text)
        try:
            return found is not None and all(map(self._below_root, places(found.path)))
        except OSError as error:
            _raise_trouble(error)
            return False
        except (ValueError, RuntimeError):
            return False

    def _locate(self, text: str) -> SourceDirectory | None:
        if not self._roots or not text:
            return None
        try:
            found = self._below_root(self._roots[0] / text)
            return found if found is not None and found.path.is_dir() else None
        except OSError as error:  # no such path
            _raise_trouble(error)
            return None
        except (ValueError, RuntimeError):  # a NUL in it, a loop of links
            return None

    def _below_root(self, path: Path) -> SourceDirectory | None:
        """Return where ``path`` really is, whatever it is there, if that is below a root."""
        path = path.resolve(strict=True)
        if self._is_forbidden(path):
            return None
        for root in self._roots:
            real = Path(os.path.realpath(root))
            if path.is_relative_to(real):
                return SourceDirectory(real, path.relative_to(real).parts)
        return None

    def _is_forbidden(self, path: Path) -> bool:
        forbidden = self.forbidden_identity()
        if forbidden is None:
            return False
        # By inode, not by name: a bind mount gives the data directory a second path.
        above = (directory.stat() for directory in (path, *path.parents))
        return any((status.st_dev, status.st_ino) == forbidden for status in above)


def _raise_trouble(error: OSError) -> None:
    """Raise ``InfrastructureError`` where ``error`` says nothing of what is there, but of this host."""
    if error.errno in _TROUBLE:
        raise InfrastructureError(
            f"the source roots cannot be looked at: {os.strerror(error.errno)}"
        ) from error
