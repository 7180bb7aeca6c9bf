"""Keeping what a job left in its artifacts directory."""

import hashlib
from collections.abc import Iterable, Iterator

from reactorcide import crashpoints
from reactorcide.domain.errors import EngineUnavailable, InvalidInput
from reactorcide.domain.globs import Globs
from reactorcide.domain.jobs import ARTIFACTS_DIR, Job, artifacts_prefix
from reactorcide.domain.sizes import format_size
from reactorcide.jobs import JobContext
from reactorcide.jobs.read import Artifact, save_artifact_listing
from reactorcide.logs.writer import LogWriter
from reactorcide.tarstream import DamagedTar, Entry, Tree, read_tar


def store_artifacts(
    context: JobContext,
    job: Job,
    tar: Iterator[bytes],
    log: LogWriter,
    *,
    most_bytes: int,
    most_files: int,
) -> str | None:
    """Store the files of a tar of the artifacts directory; returns their object key prefix.

    Streamed: memory does not grow with the files. Only regular files are kept, and of these what the job's
    globs name; what else is met is named in the job's log. The first file that there is no room for under
    one of the bounds ends it: the log says so, and so does the listing. Returns ``None`` when there
    was no file. Raises ``InfrastructureError``.
    """
    prefix = artifacts_prefix(job.job_id, job.attempt)
    globs = job.definition.artifacts
    wanted = None if globs is None else Globs(globs)
    listing: list[Artifact] = []
    left_bytes, unwanted = most_bytes, 0
    truncated = None
    tree = Tree()
    try:
        for entry in read_tar(tar):
            # The first part of each name is that of the directory itself.
            path = entry.path.partition("/")[2]
            if entry.kind == "directory":
                continue
            if wanted is not None and not wanted.match(path):
                unwanted += 1
                continue
            problem = _problem(entry, path) or tree.problem(path, entry.kind)
            if problem is not None:
                _say_not_kept(log, path, problem)
                continue
            truncated = _past_bounds(entry, left_bytes, most_bytes, len(listing), most_files)
            if truncated is not None:
                log.say(f"artifact {_shown(path)} and all after it are not kept: {truncated}")
                break
            digest = hashlib.sha256()
            try:
                size = context.objects.put(prefix + path, _hashed(entry.chunks, digest))
            except InvalidInput:
                _say_not_kept(log, path, "its path is too long or too deep")
                continue
            crashpoints.reached("artifact-stored")
            left_bytes -= size
            listing.append(Artifact(path, size, digest.hexdigest(), is_executable=bool(entry.mode & 0o100)))
    except DamagedTar as exc:
        raise EngineUnavailable(f"the artifacts could not be read from the Docker Engine: {exc}") from exc
    if not listing and truncated is None:
        if unwanted:
            log.say(f"no artifact is kept: no file in {ARTIFACTS_DIR} matches what the job's artifacts name")
        return None
    save_artifact_listing(context, job, listing, truncated=truncated is not None)
    return prefix


def _past_bounds(entry: Entry, left_bytes: int, most_bytes: int, files: int, most_files: int) -> str | None:
    if files >= most_files:
        return f"there are more than {most_files} (--max-artifacts)"
    if entry.size_bytes > left_bytes:
        return f"together they are larger than {format_size(most_bytes)} (--max-artifact-bytes)"
    return None


def _problem(entry: Entry, path: str) -> str | None:
    if entry.kind != "file":
        return "it is not a regular file"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def _say_not_kept(log: LogWriter, path: str, problem: str) -> None:
    log.say(f"artifact {_shown(path)} is not kept: {problem}")


def _shown(path: str) -> str:
    return repr(path.encode(errors="replace").decode())


def _hashed(chunks: Iterable[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
