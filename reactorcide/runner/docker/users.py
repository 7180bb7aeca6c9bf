"""The uid and gid of an image's user, by the rules of the engine (`USER` in a Dockerfile)."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from reactorcide.domain.errors import JobFailed

Lines = Callable[[str], Iterable[Sequence[str]]]
"""Returns the lines of a file of the container, each split at colons; none if the file does not exist."""


def identity(user: str, lines: Lines) -> tuple[int, int]:
    """Return the uid and gid of ``user``: empty, or a name or number with or without ``:`` and a group.

    Raises ``JobFailed`` for a name that the container does not know; the engine would not start it either.
    """
    name, _, group = user.partition(":")
    uid, gid = (0, 0) if name in ("", "0") else _user(name, lines)
    return uid, gid if not group else _group(group, lines)


def _user(name: str, lines: Lines) -> tuple[int, int]:
    for user, _, uid, gid, *_ in _records(lines, "/etc/passwd", fields=4):
        if name in (user, uid) and _is_number(uid):
            return int(uid), int(gid) if _is_number(gid) else 0
    if not _is_number(name):
        raise JobFailed(f"the image's user {name} is not in its /etc/passwd")
    return int(name), 0


def _group(name: str, lines: Lines) -> int:
    if _is_number(name):
        return int(name)
    for group, _, gid, *_ in _records(lines, "/etc/group", fields=3):
        if name == group and _is_number(gid):
            return int(gid)
    raise JobFailed(f"the group {name} of the image's user is not in its /etc/group")


def _records(lines: Lines, path: str, *, fields: int) -> Iterator[Sequence[str]]:
    return (record for record in lines(path) if len(record) >= fields)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
