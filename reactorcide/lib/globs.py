"""Globs that match paths, to select artifacts.

A glob matches a whole path: ``*``, ``?`` and ``[…]`` match characters of one name, and ``**``, alone between
slashes, matches any number of directories, including none.
"""

import fnmatch
import re
from collections.abc import Iterable

ANY_DIRECTORIES = "**"
_WILD = frozenset("*?[")
_MAX_NAMES = 1000
"""Names whose matches are cached."""


def problem(glob: str) -> str | None:
    """Return a phrase that says what is wrong with a glob; ``None`` for a valid one."""
    parts = glob.split("/")
    if "\0" in glob:
        return "contains NUL"
    if glob.startswith("/"):
        return "is absolute; globs are matched below the artifacts directory"
    if parts[-1] == "":
        return "names a directory; write dir/** for everything below it"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, or '.' or '..'"
    if any(ANY_DIRECTORIES in part and part != ANY_DIRECTORIES for part in parts):
        return "has a ** that does not stand alone between slashes"
    return None


class Globs:
    """Several globs: a path matches if it matches one of them.

    The cost is linear in the names of a path, and for each name that is not cached linear in the globs: there
    is no backtracking. The positions between the names of all globs are the bits of one number.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self._literal: dict[str, int] = {}
        """The positions from which a name without wildcards leads to the next one."""
        patterns: dict[str, int] = {}
        self._starts = self._ends = self._directories = 0
        position = 1
        for glob in dict.fromkeys(globs):
            self._starts |= position
            previous = None
            for part in glob.split("/"):
                if part == ANY_DIRECTORIES:
                    # Two of them in a row match the same as one.
                    if previous == part:
                        continue
                    self._directories |= position
                elif _WILD.isdisjoint(part):
                    self._literal[part] = self._literal.get(part, 0) | position
                else:
                    patterns[part] = patterns.get(part, 0) | position
                previous = part
                position <<= 1
            self._ends |= position
            position <<= 1
        self._patterns = [
            (re.compile(fnmatch.translate(part)), positions) for part, positions in patterns.items()
        ]
        self._names: dict[str, int] = {}

    def match(self, path: str) -> bool:
        """Return whether ``path`` matches."""
        positions = self._starts
        for name in path.split("/"):
            positions |= (positions & self._directories) << 1
            positions = ((positions & self._positions_before(name)) << 1) | (positions & self._directories)
            if not positions:
                return False
        positions |= (positions & self._directories) << 1
        return bool(positions & self._ends)

    def _positions_before(self, name: str) -> int:
        """Return the positions from which a name leads to the next one."""
        positions = self._names.get(name)
        if positions is None:
            positions = self._literal.get(name, 0)
            for pattern, before in self._patterns:
                if pattern.match(name):
                    positions |= before
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            self._names[name] = positions
        return positions
