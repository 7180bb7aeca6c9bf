"""The limit on the disk usage of a directory that git writes to."""

import os
import time
from pathlib import Path

from reactorcide.domain.errors import JobFailed
from reactorcide.lib.sizes import MIN_FILE_BYTES, format_size

_EVERY_S = 1.0
_REST = 10
"""A measurement is followed by a pause ten times as long."""


class DiskLimit:
    """Stops a checkout that takes more than ``max_bytes`` of the disk; 0 is no limit."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._due = time.monotonic() + _EVERY_S

    def check_if_due(self) -> None:
        """Call ``check``, unless the last call was recent."""
        if time.monotonic() >= self._due:
            began = time.monotonic()
            self.check()
            self._due = time.monotonic() + max(_EVERY_S, _REST * (time.monotonic() - began))

    def check(self) -> None:
        """Measure, and raise ``JobFailed`` if the directory is too large."""
        if self._max_bytes and _is_larger(self._directory, self._max_bytes):
            raise self.error()

    def error(self) -> JobFailed:
        """Return the error for a repository that is too large."""
        return JobFailed(
            f"git: the source takes more than {format_size(self._max_bytes)} of the disk (--max-disk)"
        )


def _is_larger(directory: Path, max_bytes: int) -> bool:
    size_bytes = 0
    pending = [os.fsencode(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    # Also by length: git leaves holes for zeros, which the container gets filled.
                    size_bytes += max(MIN_FILE_BYTES, status.st_size, status.st_blocks * 512)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if size_bytes > max_bytes:
                        return True
        except FileNotFoundError:
            continue  # git removes its temporary files
    return False
