"""Globs on paths, for choosing artifacts.

A glob stands for the whole path: ``*``, ``?`` and ``[…]`` for characters of one name, and ``**``, alone
between slashes, for any number of directories, also none.
"""

import fnmatch
import re
from collections.abc import Iterable

ANY_DIRECTORIES = "**"
_WILD = frozenset("*?[")
_MOST_NAMES = 1000
"""Of which it is remembered what they match."""


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
    """Several globs: a path matches if it matches one of them.

    A path costs as much as it has names, and each name that was not met lately as much as there are globs:
    nothing is ever tried twice. The places between the names of all globs are the bits of one number.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self._literal: dict[str, int] = {}
        """By a name without wildcards: the places that it leads on from."""
        patterns: dict[str, int] = {}
        self._starts = self._ends = self._directories = 0
        place = 1
        for glob in dict.fromkeys(globs):
            self._starts |= place
            previous = None
            for part in glob.split("/"):
                if part == ANY_DIRECTORIES:
                    # Any number of directories twice is any number of directories.
                    if previous == part:
                        continue
                    self._directories |= place
                elif _WILD.isdisjoint(part):
                    self._literal[part] = self._literal.get(part, 0) | place
                else:
                    patterns[part] = patterns.get(part, 0) | place
                previous = part
                place <<= 1
            self._ends |= place
            place <<= 1
        self._patterns = [(re.compile(fnmatch.translate(part)), places) for part, places in patterns.items()]
        self._names: dict[str, int] = {}

    def match(self, path: str) -> bool:
        """Tell whether ``path`` matches."""
        places = self._starts
        for name in path.split("/"):
            places |= (places & self._directories) << 1
            places = ((places & self._led_on_by(name)) << 1) | (places & self._directories)
            if not places:
                return False
        places |= (places & self._directories) << 1
        return bool(places & self._ends)

    def _led_on_by(self, name: str) -> int:
        """Return the places in the globs from which a name leads on to the next."""
        found = self._names.get(name)
        if found is None:
            found = self._literal.get(name, 0)
            for pattern, places in self._patterns:
                if pattern.match(name):
                    found |= places
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[name] = found
        return found
