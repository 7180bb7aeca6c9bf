"""The download of a job's artifacts to a directory."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.session import ServiceAway, ServiceError
from reactorcide.domain.errors import ReactorcideError

_MAX_AWAY = 3
"""Give up the download after so many artifacts in a row without an answer."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def download(
    client: Client, job_id: str, items: list[dict[str, Any]], output: Path, *, overwrite: bool
) -> None:
    """Download artifacts, those of a job's listing, to a directory; identical files stay.

    Raises ``ReactorcideError`` before any download if an existing file differs and must not be overwritten;
    and after all downloads if some of them failed.
    """
    # Check all targets before writing the first.
    missing = {}
    for item in items:
        target = _target(output, item["path"])
        if os.path.lexists(target) and _is_there(target, item):
            _set_mode(target, item)
        else:
            missing[target] = item
    existing = [target for target in missing if os.path.lexists(target)]
    if existing and not overwrite:
        raise ReactorcideError(
            f"{render.printable(str(existing[0]))} exists already and differs, so nothing was downloaded; "
            "choose another directory with --output, or give --overwrite"
        )
    problems: list[str] = []
    away = 0
    with render.progress("downloading", sum(item["size"] for item in missing.values())) as advance:
        for target, item in missing.items():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _save(client, job_id, item, target, advance)
                away = 0
            except ServiceError as exc:
                problems.append(f"{render.printable(item['path'])}: {exc}")
                away = away + 1 if isinstance(exc, ServiceAway) else 0
                if away == _MAX_AWAY:
                    break
            except OSError as exc:
                problems.append(
                    f"{render.printable(str(target))} cannot be written: {exc.strerror}; "
                    "choose another directory with --output"
                )
                if exc.errno in _NO_ROOM:
                    break
    for problem in problems[:-1]:
        render.say(f"reactorcide: {problem}", err=True)
    if problems:
        raise ReactorcideError(
            f"{problems[-1]} ({len(problems)} of {len(missing)} artifacts could not be downloaded)"
        )


def _target(output: Path, path: str) -> Path:
    """Return the path for an artifact. The service is not trusted: refuse paths outside of ``output``."""
    parts = path.split("/")
    root = output.resolve()
    target = output.joinpath(*parts)
    if {"", ".", ".."} & set(parts) or "\0" in path or not target.parent.resolve().is_relative_to(root):
        raise ReactorcideError(
            f"the artifact {render.printable(path)!r} would be written outside of {output}, "
            "so nothing was downloaded"
        )
    return target


def _is_there(target: Path, item: dict[str, Any]) -> bool:
    """Return whether the target is a regular file with the artifact's bytes; a link is not."""
    try:
        if target.is_symlink() or not target.is_file() or target.stat().st_size != item["size"]:
            return False
        with target.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == item["sha256"])
    except OSError:
        # An unreadable file counts as different.
        return False


def _save(
    client: Client, job_id: str, item: dict[str, Any], target: Path, advance: Callable[[int], None]
) -> None:
    """Download one artifact to a temporary file, verify it, and rename it to its target."""
    digest, remaining_bytes = hashlib.sha256(), item["size"]
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".reactorcide-")
    try:
        with open(descriptor, "wb") as file:
            for chunk in client.artifact(job_id, item["path"]):
                remaining_bytes -= len(chunk)
                if remaining_bytes < 0:
                    break
                file.write(chunk)
                digest.update(chunk)
                advance(len(chunk))
        if remaining_bytes != 0 or digest.hexdigest() != item["sha256"]:
            raise ServiceError(f"the artifact {item['path']!r} arrived damaged; download it again")
        # The mode of an ordinary new file: mkstemp gives access to the owner only.
        os.chmod(temporary, 0o666 & ~_umask())
        _set_mode(Path(temporary), item)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _set_mode(target: Path, item: dict[str, Any]) -> None:
    """Set or clear the executable bits of an artifact, as the listing says, if they differ."""
    if "executable" not in item:
        # An older service does not send it.
        return
    mode = target.stat().st_mode & 0o777
    new_mode = mode | (0o111 & ~_umask()) if item["executable"] else mode & ~0o111
    if bool(mode & 0o100) is not bool(new_mode & 0o100):
        target.chmod(new_mode)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
