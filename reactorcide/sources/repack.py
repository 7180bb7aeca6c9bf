"""Single entries as a tar stream for a container."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from reactorcide.lib.clock import now_ms
from reactorcide.lib.tar import Entry, Tree, write_entry


def repack(
    entries: Iterable[Entry], *, prefix: str, uid: int, gid: int, check: Callable[[], None]
) -> Iterator[bytes]:
    """Yield an uncompressed tar of ``entries`` below ``prefix``, to be unpacked at ``/``.

    The end of the tar is left out, so that another one may follow.

    All belong to ``uid`` and ``gid``, including the directories that are not among the entries. ``check`` is
    called for every piece, and stops the archive by raising. Raises what ``entries`` raises.
    """
    home = PurePosixPath(prefix).parts[1:]

    def below(path: str) -> str:
        return "/".join((*home, path) if path else home)

    written = Tree()
    yield from write_entry(_directory(""), below(""), uid=uid, gid=gid)
    for entry in entries:
        for above in written.missing_above(entry.path):
            yield from write_entry(_directory(above), below(above), uid=uid, gid=gid)
        if entry.kind == "directory":
            written.problem(entry.path, entry.kind)
        target = below(entry.target) if entry.kind == "hardlink" else entry.target
        for piece in write_entry(entry, below(entry.path), uid=uid, gid=gid, target=target):
            check()
            yield piece


def _directory(path: str) -> Entry:
    return Entry(path=path, kind="directory", mode=0o755, modified_s=now_ms() // 1000)
