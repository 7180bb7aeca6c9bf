"""Files that come one by one as the tar stream that a container takes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from reactorcide.lib.clock import now_ms
from reactorcide.lib.tar import Entry, Tree, write_entry


def repack(
    entries: Iterable[Entry], *, prefix: str, uid: int, gid: int, check: Callable[[], None]
) -> Iterator[bytes]:
    """Yield an uncompressed tar of ``entries``, to be unpacked at ``/``: they lie below ``prefix``.

    It comes without the end of a tar.

    All belong to ``uid`` and ``gid``, and so do the directories that the entries themselves do not name.
    ``check`` is called for every piece, and stops it by raising. Raises what ``entries`` raises.
    """
    home = PurePosixPath(prefix).parts[1:]

    def below(path: str) -> str:
        return "/".join((*home, path) if path else home)

    made = Tree()
    yield from write_entry(_directory(""), below(""), uid=uid, gid=gid)
    for entry in entries:
        for above in made.missing_above(entry.path):
            yield from write_entry(_directory(above), below(above), uid=uid, gid=gid)
        if entry.kind == "directory":
            made.problem(entry.path, entry.kind)
        target = below(entry.target) if entry.kind == "hardlink" else entry.target
        for piece in write_entry(entry, below(entry.path), uid=uid, gid=gid, target=target):
            check()
            yield piece


def _directory(path: str) -> Entry:
    return Entry(path=path, kind="directory", mode=0o755, modified_s=now_ms() // 1000)
