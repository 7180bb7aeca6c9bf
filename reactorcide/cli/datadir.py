"""The data directory's lock: one service at a time."""

import fcntl
import os
import shlex
import time
from pathlib import Path
from typing import TextIO

from reactorcide.domain.errors import ConfigurationError

_PATIENCE_S = 5.0
_UNKNOWN = "unknown"
_MAX_OWNER_CHARS = 20


def lock_data_dir(data_dir: Path) -> TextIO:
    """Create and lock the data directory, for as long as the returned file is open.

    Waits up to 5 s, because the worker of a killed service holds the lock for about a second. Raises
    ``ConfigurationError`` if another service holds the lock, another user owns something in the directory,
    or it cannot be used.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owners(data_dir)
        # Stays open across the fork, so that the worker holds the lock too.
        lock = open(  # noqa: SIM115  # the caller closes it
            _lock_path(data_dir), "a+", encoding="ascii", errors="replace", opener=_open_itself
        )
    except OSError as exc:
        raise _unusable(data_dir, exc) from exc
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            owner = _owner(lock)
            lock.close()
            raise ConfigurationError(
                f"another reactorcide (process {owner}) uses the data directory {data_dir}; "
                "stop it, or choose another directory with --data-dir"
            ) from None
        try:
            os.ftruncate(lock.fileno(), 0)
            # Unbuffered: a full disk would fail the closing of the file, too.
            os.pwrite(lock.fileno(), f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:
            lock.close()
            raise _unusable(data_dir, exc) from exc
        return lock


def lock_owner(data_dir: Path) -> str | None:
    """Return the id of the process that holds the data directory's lock; ``None`` if none does.

    Changes nothing. Raises ``OSError`` if the lock cannot be read.
    """
    if not _lock_path(data_dir).exists():
        return None
    with open(_lock_path(data_dir), encoding="ascii", errors="replace", opener=_open_itself) as lock:
        try:
            # Shared and only for an instant: a service that starts at this moment retries.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(lock)
    return None


def _unusable(data_dir: Path, exc: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the data directory {data_dir} cannot be used: {exc.strerror}; choose one with --data-dir"
    )


def _check_owners(data_dir: Path) -> None:
    """Raise ``ConfigurationError`` if another user except root owns the directory or a file in it."""
    for path in (data_dir.resolve(), *data_dir.iterdir()):
        owner = path.lstat().st_uid
        if owner not in (0, os.geteuid()):
            raise ConfigurationError(
                f"{path} belongs to another user ({owner}), who could have put anything there: start the "
                "service as that user, choose another directory with --data-dir, or make this one your own: "
                f"chown -Rh {os.geteuid()} {shlex.quote(str(data_dir))}"
            )


def _open_itself(path: str, flags: int) -> int:
    """Open a file without following a link."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)


def _owner(lock: TextIO) -> str:
    lock.seek(0)
    return lock.read(_MAX_OWNER_CHARS).strip() or _UNKNOWN


def _lock_path(data_dir: Path) -> Path:
    return data_dir / "lock"
