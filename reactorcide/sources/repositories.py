"""Where git reads a repository of this host from, beside the directory that is named."""

import os
from collections.abc import Iterator
from pathlib import Path

_MAX_PLACES = 1000
_MAX_CHARS = 1 << 16


def places(path: Path) -> Iterator[Path]:
    """Yield all that the repository at ``path`` has git read: what its links and its own files lead to.

    By gitrepository-layout(5) ``.git`` may say that the repository is elsewhere, a work tree have a directory
    in common with others, and objects be borrowed from other repositories. Raises ``OSError`` or
    ``ValueError`` for a repository that cannot be followed.
    """
    begin = path / ".git"
    # git would try this name as well, where the directory itself is no repository.
    pending = [path / "..git"] if os.path.lexists(path / "..git") else []
    pending.append(begin if os.path.lexists(begin) else path)
    seen: set[Path] = set()
    while pending:
        place = pending.pop()
        yield place
        place = place.resolve(strict=True)
        if place in seen:
            continue
        seen.add(place)
        if len(seen) > _MAX_PLACES:
            raise ValueError("too many places")
        if place.is_file():
            pending += [place.parent / line.removeprefix("gitdir:").strip() for line in _lines(place)[:1]]
        # A directory that is no repository may hold anything, and as much of it as there is.
        elif place != path or (place / "HEAD").exists():
            pending += [place / line for line in _lines(place / "commondir")[:1]]
            for objects in (place / "objects", place):
                pending += [objects / line for line in _lines(objects / "info" / "alternates")]
            yield from _links(place)


def _links(directory: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, directories, files in os.walk(directory, onerror=fail):
        for name in (*directories, *files):
            path = Path(parent, name)
            if path.is_symlink():
                yield path


def _lines(path: Path) -> list[str]:
    """Return the lines of a small file, none where it is not there."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        text = file.read(_MAX_CHARS)
    if len(text) == _MAX_CHARS or '"' in text:
        # git takes a quoted name for another one than what is written.
        raise ValueError(f"not to be followed: {path}")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
