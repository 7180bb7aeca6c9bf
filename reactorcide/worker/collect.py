"""Keeping what a job left in its artifacts directory."""

import hashlib
import tarfile
from collections.abc import Iterator
from typing import Any

from reactorcide import crashpoints
from reactorcide.domain.errors import EngineUnavailable
from reactorcide.domain.jobs import Job, artifacts_prefix
from reactorcide.jobs import JobContext
from reactorcide.jobs.read import Artifact, save_artifact_listing
from reactorcide.logs.writer import LogWriter

_CHUNK_BYTES = 1 << 18


def store_artifacts(context: JobContext, job: Job, tar: Iterator[bytes], log: LogWriter) -> str | None:
    """Store the files of a tar of the artifacts directory; returns their object key prefix.

    Streamed: memory does not grow with the files. Only regular files are kept; what else is met is named
    in the job's log. Returns ``None`` when no file was left. Raises ``InfrastructureError``.
    """
    prefix = artifacts_prefix(job.job_id, job.attempt)
    listing: list[Artifact] = []
    try:
        stream: Any = _TarStream(tar)  # has the one method that is used
        with tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive:
            for member in archive:
                # The first part of each name is that of the directory itself.
                path = member.name.partition("/")[2]
                if member.isdir():
                    continue
                problem = _problem(member, path)
                if problem is not None:
                    log.say(f"artifact {path.encode(errors='replace').decode()!r} is not kept: {problem}")
                    continue
                digest = hashlib.sha256()
                size = context.objects.put(prefix + path, _file_chunks(archive, member, digest))
                crashpoints.reached("artifact-stored")
                listing.append(Artifact(path, size, digest.hexdigest()))
    except tarfile.TarError as exc:
        raise EngineUnavailable(f"the artifacts could not be read from the Docker Engine: {exc}") from exc
    if not listing:
        return None
    save_artifact_listing(context, job, listing)
    return prefix


def _problem(member: tarfile.TarInfo, path: str) -> str | None:
    if not member.isreg():
        return "it is not a regular file"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "its path leads out of the artifacts directory"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def _file_chunks(
    archive: tarfile.TarFile, member: tarfile.TarInfo, digest: "hashlib._Hash"
) -> Iterator[bytes]:
    file = archive.extractfile(member)
    while file is not None and (chunk := file.read(_CHUNK_BYTES)):
        digest.update(chunk)
        yield chunk


class _TarStream:
    """Chunks of any size as the ``read`` that ``tarfile`` wants."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        pieces = [self._rest]
        have = len(self._rest)
        while have < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            pieces.append(chunk)
            have += len(chunk)
        data = b"".join(pieces)
        self._rest = data[size:]
        return data[:size]
