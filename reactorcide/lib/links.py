"""Where symbolic links lead, by their text alone."""

import posixpath


def leads_to(path: str, target: str) -> str | None:
    """Return the path that a link at ``path`` leads to; ``None`` if it leads out of the directory of both.

    Paths are relative to that directory. What the link leads through is not looked at.
    """
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return None if posixpath.isabs(joined) or joined in (".", "..") or joined.startswith("../") else joined
