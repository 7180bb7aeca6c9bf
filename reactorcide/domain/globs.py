"""Globs on paths, for choosing artifacts.

A glob stands for the whole path: ``*``, ``?`` and ``[…]`` for characters of one name, and ``**``, alone
between slashes, for any number of directories, also none.
"""

import fnmatch
import re
from collections.abc import Iterable

ANY_DIRECTORIES = "**"


def problem(glob: str) -> str | None:
    """Return in a phrase what is wrong with a glob; ``None`` for a good one."""
    parts = glob.split("/")
    if "\0" in glob:
        return "contains NUL"
    if glob.startswith("/"):
        return "is absolute; globs are matched below the artifacts directory"
    if parts[-1] == "":
        return "names a directory; write dir/** for all that is below it"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, or '.' or '..'"
    if any(ANY_DIRECTORIES in part and part != ANY_DIRECTORIES for part in parts):
        return "has a ** that does not stand alone between slashes"
    return None


class Globs:
    """Several globs: a path matches if it matches one of them. Takes time linear in the path."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._globs = [
            [
                None if part == ANY_DIRECTORIES else re.compile(fnmatch.translate(part))
                for part in glob.split("/")
            ]
            for glob in globs
        ]

    def match(self, path: str) -> bool:
        """Tell whether ``path`` matches."""
        return any(_matches(glob, path.split("/")) for glob in self._globs)


def _matches(glob: list[re.Pattern[str] | None], names: list[str]) -> bool:
    # The places in the glob where the names so far may have led to.
    places = _past_any(glob, {0})
    for name in names:
        reached = set()
        for place in places:
            if place < len(glob):
                pattern = glob[place]
                if pattern is None:
                    reached.add(place)
                elif pattern.match(name):
                    reached.add(place + 1)
        places = _past_any(glob, reached)
    return len(glob) in places


def _past_any(glob: list[re.Pattern[str] | None], places: set[int]) -> set[int]:
    """Return the places with those that a ``**`` for no directory leads on to."""
    found: set[int] = set()
    for place in places:
        while place not in found:
            found.add(place)
            if place < len(glob) and glob[place] is None:
                place += 1
    return found
