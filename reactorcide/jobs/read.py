"""Looking at jobs: lists, waiting for a change, and artifacts."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.errors import NotFound, ObjectNotFound
from reactorcide.domain.jobs import AttemptRecord, Job, JobFilter, artifacts_prefix, attempt_prefix
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import LOOK_EVERY_S
from reactorcide.lib.tar import Entry

_MAX_QUEUES = 1000
"""In a list: a user may name a queue of its own for each job."""


@dataclass(frozen=True, slots=True)
class ArtifactListing:
    """What a job left, by path; ``truncated`` says that there was more than is kept."""

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
    """Return a page of jobs without secrets and how many there are in all; see ``Lists.page``."""
    return context.store.lists.page(criteria, limit=limit, offset=offset, after=after, max_chars=max_chars)


def queues(context: StoredJobs, user: User) -> tuple[list[dict[str, object]], bool]:
    """Return what each queue with unfinished jobs holds, counting only jobs that ``user`` may see.

    Tells, too, whether there are more than are returned.
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
    """Return those of some jobs that ``user`` may see."""
    if user.is_admin:
        return list(job_ids)
    return [job_id for job_id in job_ids if access.may_see_job(context, user, context.store.jobs.get(job_id))]


def attempts(context: StoredJobs, job: Job) -> list[AttemptRecord]:
    """Return every attempt of a job, the first one first."""
    return context.store.attempts.of_job(job.job_id)


def wait_for_change(context: StoredJobs, user: User, job_id: str, *, timeout_s: float) -> Job:
    """Return the job as soon as its status is another one than now, is final, or the time is up."""
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
    """Return what the job's last attempt left."""
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
    """Return what the listing says of one file that the job left; raises ``NotFound``."""
    # One line is parsed, not ten thousand: a client that downloads all of them asks for each.
    data = _listing(context, job)
    start = data.find(f"\n{{{_path_json(path)}, ".encode())
    if start < 0:
        for item in artifacts(context, job).artifacts:
            if item.path == path:
                return item
        raise NotFound(f"the job left no artifact {path!r}")
    return Artifact(**json.loads(data[start : data.index(b"\n", start + 1)].rstrip(b",")))


def artifact_bytes(context: StoredJobs, job: Job, item: Artifact) -> Iterator[bytes]:
    """Return the bytes of one file that the job left; raises ``ObjectNotFound`` on the call itself."""
    return context.objects.read(artifacts_prefix(job.job_id, job.attempt) + item.path)


def artifact_entries(context: StoredJobs, job: Job, items: Iterable[Artifact]) -> Iterator[Entry]:
    """Yield files that the job left, for a tar; each is opened when it is come to."""
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
    """Write down what an attempt left; what is not in the listing is not there for clients."""
    lines = [json.dumps(asdict(item)) for item in sorted(listing, key=lambda item: item.path)]
    # A line each, which begins with the path, as ``artifact`` looks for it.
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
