"""The places that git reads for a repository of this host, outside its directory, too."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from reactorcide.domain.errors import InvalidInput

_MAX_PLACES = 1000
_MAX_ENTRIES = 500_000
"""Of files and directories in all places: a request waits for them, about a microsecond for each."""
_MAX_CHARS = 1 << 16


def places(path: Path) -> Iterator[Path]:
    """Yield all places that git reads for the repository at ``path``, by its links and by its own files.

    By gitrepository-layout(5) ``.git`` may name another directory, a work tree may share a directory with
    others, and objects may be borrowed from other repositories. Raises ``OSError`` or ``ValueError`` for a
    repository that cannot be followed, and ``InvalidInput`` for one with too many files.
    """
    entries = count(1)
    start = path / ".git"
    # git tries this name as well if the directory itself is not a repository.
    pending = [path / "..git"] if os.path.lexists(path / "..git") else []
    pending.append(start if os.path.lexists(start) else path)
    visited: set[Path] = set()
    while pending:
        place = pending.pop()
        yield place
        place = place.resolve(strict=True)
        if place in visited:
            continue
        visited.add(place)
        if len(visited) > _MAX_PLACES:
            raise ValueError("too many places")
        if place.is_file():
            pending += [place.parent / line.removeprefix("gitdir:").strip() for line in _lines(place)[:1]]
        # A directory that is not a repository may contain any number of files.
        elif place != path or (place / "HEAD").exists():
            pending += [place / line for line in _lines(place / "commondir")[:1]]
            for objects in (place / "objects", place):
                pending += [objects / line for line in _lines(objects / "info" / "alternates")]
            yield from _links(place, entries)


def _links(directory: Path, entries: Iterator[int]) -> Iterator[Path]:
    """Yield the links below a directory, and count each entry by ``entries``."""
    pending = [os.fspath(directory)]
    while pending:
        with os.scandir(pending.pop()) as items:
            for entry in items:
                if next(entries) > _MAX_ENTRIES:
                    raise InvalidInput(
                        f"git_url leads to a repository with more than {_MAX_ENTRIES} files and directories; "
                        "pack it with 'git gc'",
                        field="git_url",
                    )
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def _lines(path: Path) -> list[str]:
    """Return the lines of a small file, none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        text = file.read(_MAX_CHARS)
    if len(text) == _MAX_CHARS or '"' in text:
        # git unquotes a quoted name.
        raise ValueError(f"not to be followed: {path}")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
