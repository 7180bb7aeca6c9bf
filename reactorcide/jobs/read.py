"""Reading jobs: lists, waiting for a change, and artifacts."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.errors import NotFound, ObjectNotFound
from reactorcide.domain.jobs import AttemptRecord, Job, JobFilter, artifacts_prefix, attempt_prefix
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import LOOK_EVERY_S
from reactorcide.lib.records import record
from reactorcide.lib.tar import Entry

_MAX_QUEUES = 1000
"""Maximum number of queues in a list, because users can name a new queue for each job."""


@record
class ArtifactListing:
    """The artifacts of a job, by path; ``truncated``: not all of them were stored."""

    artifacts: list[Artifact]
    truncated: bool


def page(
    context: StoredJobs,
    criteria: JobFilter,
    *,
    limit: int,
    offset: int,
    after: tuple[int, str] | None,
    max_chars: int,
) -> tuple[list[Job], int]:
    """Return a page of jobs without secrets, and the total; see ``Lists.page``."""
    return context.store.lists.page(criteria, limit=limit, offset=offset, after=after, max_chars=max_chars)


def queues(context: StoredJobs, user: User) -> tuple[list[dict[str, object]], bool]:
    """Return the figures of each queue with unfinished jobs, counting only jobs that ``user`` may see.

    Also returns whether there are more queues.
    """
    at_ms = now_ms()
    queues = context.store.queues.figures(None if user.is_admin else user.user_id, limit=_MAX_QUEUES + 1)
    return [
        {
            "queue_name": figures.name,
            "waiting": figures.waiting,
            "running": figures.running,
            "oldest_wait_seconds": None
            if figures.oldest_waiting_ms is None
            else max(0, at_ms - figures.oldest_waiting_ms) / 1000,
        }
        for figures in queues[:_MAX_QUEUES]
    ], len(queues) > _MAX_QUEUES


def visible(context: StoredJobs, user: User, job_ids: Iterable[str]) -> list[str]:
    """Return the jobs with these ids that ``user`` may see."""
    if user.is_admin:
        return list(job_ids)
    return [job_id for job_id in job_ids if access.may_see_job(context, user, context.store.jobs.get(job_id))]


def attempts(context: StoredJobs, job: Job) -> list[AttemptRecord]:
    """Return every attempt of a job, oldest first."""
    return context.store.attempts.of_job(job.job_id)


def wait_for_change(context: StoredJobs, user: User, job_id: str, *, timeout_s: float) -> Job:
    """Return the job when its status changes or is final, or after the timeout."""
    deadline = monotonic() + timeout_s
    with context.notifier.watching(job_id) as changed:
        first = access.get(context, user, job_id)
        job = first
        while not job.is_final and job.status is first.status and not context.notifier.closed:
            remaining_s = deadline - monotonic()
            if remaining_s <= 0:
                break
            changed.wait(min(remaining_s, LOOK_EVERY_S))
            changed.clear()
            job = access.get(context, user, job_id)
    return job


def artifacts(context: StoredJobs, job: Job) -> ArtifactListing:
    """Return the artifacts of the job's last attempt."""
    data = _listing(context, job)
    if not data:
        return ArtifactListing([], truncated=False)
    listing = json.loads(data)
    if isinstance(listing, list):
        # A bare list, as development versions before 0.1.0 wrote it.
        listing = {"artifacts": listing, "truncated": False}
    return ArtifactListing(
        [Artifact(**item) for item in listing["artifacts"]], truncated=listing["truncated"]
    )


def artifact(context: StoredJobs, job: Job, path: str) -> Artifact:
    """Return the listing's entry of one artifact; raises ``NotFound``."""
    # Parse only its line, not ten thousand: a client that downloads all artifacts requests each of them.
    data = _listing(context, job)
    start = data.find(f"\n{{{_path_json(path)}, ".encode())
    if start < 0:
        for item in artifacts(context, job).artifacts:
            if item.path == path:
                return item
        raise NotFound(f"the job has no artifact {path!r}")
    return Artifact(**json.loads(data[start : data.index(b"\n", start + 1)].rstrip(b",")))


def artifact_bytes(context: StoredJobs, job: Job, item: Artifact) -> Iterator[bytes]:
    """Return the bytes of one artifact; raises ``ObjectNotFound`` on the call itself."""
    return context.objects.read(artifacts_prefix(job.job_id, job.attempt) + item.path)


def artifact_bytes_stored(context: StoredJobs, job: Job, item: Artifact) -> int:
    """Return the size of one artifact as it is stored now; raises ``ObjectNotFound``."""
    return context.objects.size(artifacts_prefix(job.job_id, job.attempt) + item.path)


def artifact_entries(context: StoredJobs, job: Job, items: Iterable[Artifact]) -> Iterator[Entry]:
    """Yield artifacts for a tar; each is opened when its turn comes."""
    for item in items:
        yield Entry(
            path=item.path,
            kind="file",
            mode=0o755 if item.is_executable else 0o644,
            modified_s=(job.completed_at_ms or 0) // 1000,
            size_bytes=item.size,
            chunks=artifact_bytes(context, job, item),
        )


def save_artifact_listing(
    context: StoredJobs, job: Job, listing: Sequence[Artifact], *, truncated: bool = False
) -> None:
    """Store the listing of an attempt's artifacts; clients see only files in the listing."""
    lines = [json.dumps(asdict(item)) for item in sorted(listing, key=lambda item: item.path)]
    # One line per artifact, which begins with the path: ``artifact`` searches for it.
    data = f'{{"truncated": {json.dumps(truncated)}, "artifacts": [\n' + ",\n".join(lines) + "\n]}\n"
    context.objects.put(_listing_key(job.job_id, job.attempt), [data.encode()])


def _listing(context: StoredJobs, job: Job) -> bytes:
    if job.artifacts_object_key is None:
        return b""
    try:
        return b"".join(context.objects.read(_listing_key(job.job_id, job.attempt)))
    except ObjectNotFound:
        return b""


def _path_json(path: str) -> str:
    return json.dumps({"path": path})[1:-1]


def _listing_key(job_id: str, attempt: int) -> str:
    return attempt_prefix(job_id, attempt) + "artifacts.json"
