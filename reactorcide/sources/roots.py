"""The directories of this host that jobs may take files from."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from reactorcide.domain.errors import InfrastructureError, InvalidInput
from reactorcide.lib.records import record
from reactorcide.sources.repositories import places
from reactorcide.sources.urls import GitUrl

# Too many open files, no memory, a failing disk or network file system: none of these means "not found".
_HOST_FAILURES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}

Identity = tuple[int, int]  # (st_dev, st_ino): identifies a directory under any path


@record
class SourceDirectory:
    """A directory to read: a ``root`` of the operator's, and the ``parts`` of a path below it.

    ``root`` and ``parts`` are free of symbolic links and ``..`` if they come from ``SourceRoots``;
    ``archive`` descends ``parts`` without following links created since.
    """

    root: Path
    parts: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The whole path."""
        return self.root.joinpath(*self.parts)


class SourceRoots:
    """Decides which directories may be read: those below ``roots``, never the ``forbidden`` one.

    ``forbidden`` is the service's data directory, with every job's logs and the admin's token. Nothing is
    cached, since the file system changes: check when a job is submitted and again when it runs.
    Thread-safe.
    """

    def __init__(self, roots: Sequence[Path], forbidden: Path | None) -> None:
        self._roots = tuple(roots)
        self._forbidden = forbidden

    def resolve(self, source_path: str) -> SourceDirectory:
        """Return the directory that ``source_path`` (absolute, or relative to the first root) leads to.

        Raises ``InvalidInput`` for ``source_path``, with the same message for a missing path, a path that is
        not a directory, and one outside the roots: jobs must not be able to probe for files there.
        """
        directory = self._locate(source_path)
        if directory is None:
            raise self._refused("source_path", "directory")
        return directory

    def check_git_url(self, url: str) -> None:
        """Raise ``InvalidInput`` for ``git_url`` unless ``url`` is one that a job may clone.

        A path or ``file://`` URL has to lead to a directory below a root, as in ``resolve``, and so have all
        places to which the repository refers.
        """
        path = GitUrl.parse(url).local_path
        if path is not None and not self._holds_repository(path):
            raise self._refused("git_url", "repository")

    def forbidden_identity(self) -> Identity | None:
        """Return the identity of the forbidden directory, if it exists; ``archive`` leaves it out."""
        if self._forbidden is None:
            return None
        try:
            status = self._forbidden.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InfrastructureError(
                f"the data directory {self._forbidden} cannot be read: {error.strerror}"
            ) from error
        return status.st_dev, status.st_ino

    def _refused(self, field: str, kind: str) -> InvalidInput:
        problem = f"{field} must lead to a {kind} below one of the server's source roots"
        if not self._roots:
            problem += ", and it has none: its operator can name some with --source-root"
        return InvalidInput(problem, field=field)

    def _holds_repository(self, text: str) -> bool:
        directory = self._locate(text)
        try:
            return directory is not None and all(map(self._below_root, places(directory.path)))
        except OSError as error:
            _raise_host_failure(error)
            return False
        except (ValueError, RuntimeError):
            return False

    def _locate(self, text: str) -> SourceDirectory | None:
        if not self._roots or not text:
            return None
        try:
            place = self._below_root(self._roots[0] / text)
            return place if place is not None and place.path.is_dir() else None
        except OSError as error:  # no such path
            _raise_host_failure(error)
            return None
        except (ValueError, RuntimeError):  # a NUL in it, a loop of links
            return None

    def _below_root(self, path: Path) -> SourceDirectory | None:
        """Return the real place of ``path``, a file or a directory, if it is below a root."""
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


def _raise_host_failure(error: OSError) -> None:
    """Raise ``InfrastructureError`` if ``error`` is a failure of this host, not a property of the path."""
    if error.errno in _HOST_FAILURES:
        raise InfrastructureError(f"the source roots cannot be read: {os.strerror(error.errno)}") from error
