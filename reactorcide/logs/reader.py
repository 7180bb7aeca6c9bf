"""Reading a log: whole, its last lines, or following it while it grows."""

from collections.abc import Callable, Iterator

from reactorcide.domain.errors import ObjectNotFound
from reactorcide.objects import ObjectStore
from reactorcide.signals import Signals

_BLOCK_BYTES = 1 << 16
_IDLE_S = 1.0


def read_log(objects: ObjectStore, key: str, *, start: int = 0) -> Iterator[bytes]:
    """Yield a log from an offset on, up to what is there now; one that has not begun is empty."""
    try:
        return objects.read(key, start)
    except ObjectNotFound:
        return iter(())


def tail_offset(objects: ObjectStore, key: str, lines: int) -> int:
    """Return the offset at which the last ``lines`` lines of a log begin.

    A line ends with its newline; what follows the last one counts as a line too. Reads no more of
    the log than those lines.
    """
    try:
        end = objects.size(key)
    except ObjectNotFound:
        return 0
    if lines == 0:
        return end
    # The newline that ends the last line does not begin another one.
    wanted = lines
    position = end
    first_block = True
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        block = b"".join(objects.read(key, start, position))
        search_end = len(block)
        if first_block and block.endswith(b"\n"):
            search_end -= 1
        first_block = False
        while (found := block.rfind(b"\n", 0, search_end)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start + found + 1
            search_end = found
        position = start
    return 0


def follow_log(
    objects: ObjectStore,
    signals: Signals,
    job_id: str,
    key: str,
    is_closed: Callable[[], bool],
    *,
    start: int = 0,
) -> Iterator[bytes]:
    """Yield a log from an offset on, as it grows, until it is closed or the service stops.

    Yields ``b""`` about once a second while nothing comes, so that the caller can look whether
    anybody still listens.
    """
    position = start
    with signals.watching(job_id, key) as changed:
        while True:
            changed.clear()
            # Asked before reading: what is written before it closes is then always read.
            closed = is_closed()
            for chunk in read_log(objects, key, start=position):
                position += len(chunk)
                yield chunk
            if closed or signals.closed:
                return
            if not changed.wait(_IDLE_S):
                yield b""
