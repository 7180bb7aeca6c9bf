"""Looking at jobs: lists, waiting for a change, logs and artifacts."""

import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from time import monotonic

from reactorcide.domain.accounts import User
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import NotFound, ObjectNotFound
from reactorcide.domain.jobs import AttemptRecord, Job, JobFilter, artifacts_prefix, attempt_prefix, log_key
from reactorcide.jobs import JobContext, access
from reactorcide.logs.reader import follow_log, read_log, tail_offset


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file that a job left."""

    path: str
    size: int
    sha256: str


def page(
    context: JobContext, wanted: JobFilter, *, limit: int, offset: int, after: tuple[int, str] | None
) -> tuple[list[Job], int]:
    """Return a page of jobs and how many there are in all; see ``JobStore.page``."""
    return context.store.page(wanted, limit=limit, offset=offset, after=after)


def queues(context: JobContext, user: User) -> list[dict[str, object]]:
    """Return what each queue with unfinished jobs holds, counting only jobs that ``user`` may see."""
    at_ms = now_ms()
    return [
        {
            "queue_name": figures.name,
            "waiting": figures.waiting,
            "running": figures.running,
            "oldest_wait_seconds": None
            if figures.oldest_waiting_ms is None
            else max(0, at_ms - figures.oldest_waiting_ms) / 1000,
        }
        for figures in context.store.queue_figures(None if user.is_admin else user.user_id)
    ]


def visible(context: JobContext, user: User, job_ids: Iterable[str]) -> list[str]:
    """Return those of some jobs that ``user`` may see."""
    if user.is_admin:
        return list(job_ids)
    return [job_id for job_id in job_ids if context.store.get(job_id).user_id == user.user_id]


def attempts(context: JobContext, job: Job) -> list[AttemptRecord]:
    """Return every attempt of a job, the first one first."""
    return context.store.attempts(job.job_id)


def wait_for_change(context: JobContext, user: User, job_id: str, *, timeout_s: float) -> Job:
    """Return the job as soon as its status is another one than now, is final, or the time is up."""
    deadline = monotonic() + timeout_s
    with context.signals.watching(job_id) as changed:
        first = access.get(context, user, job_id)
        job = first
        while not job.is_final and job.status is first.status and not context.signals.closed:
            left_s = deadline - monotonic()
            if left_s <= 0 or not changed.wait(left_s):
                break
            changed.clear()
            job = access.get(context, user, job_id)
    return job


def read(context: JobContext, job: Job, *, attempt: int | None, tail: int | None) -> Iterator[bytes]:
    """Yield what an attempt (the last one, if none is named) has printed up to now."""
    key = log_key(job.job_id, _existing(job, attempt))
    start = 0 if tail is None else tail_offset(context.objects, key, tail)
    return read_log(context.objects, key, start=start)


def follow(
    context: JobContext, job: Job, *, attempt: int | None, tail: int | None
) -> Generator[bytes, None, None]:
    """Yield a log as it grows until it closes, over all further attempts where none is named.

    Yields ``b""`` now and then while nothing comes; see ``follow_log``. Raises ``NotFound`` on the call
    itself.
    """
    number = _existing(job, attempt)
    start = 0 if tail is None else tail_offset(context.objects, log_key(job.job_id, number), tail)
    return _follow_from(context, job, number, start, only_this=attempt is not None)


def _follow_from(
    context: JobContext, job: Job, number: int, start: int, *, only_this: bool
) -> Generator[bytes, None, None]:
    while True:
        current = number
        yield from follow_log(
            context.objects,
            context.signals,
            job.job_id,
            log_key(job.job_id, current),
            lambda: context.store.log_is_closed(job.job_id, current),  # noqa: B023  # used before it changes
            start=start,
        )
        if only_this or context.signals.closed:
            return
        try:
            latest = context.store.get(job.job_id).attempt
        except NotFound:
            return
        if latest == number:
            return
        number, start = number + 1, 0


def artifacts(context: JobContext, job: Job) -> list[Artifact]:
    """Return what the job's last attempt left, by path."""
    if job.artifacts_object_key is None:
        return []
    try:
        listing = b"".join(context.objects.read(_listing_key(job.job_id, job.attempt)))
    except ObjectNotFound:
        return []
    return [Artifact(**item) for item in json.loads(listing)]


def artifact(context: JobContext, job: Job, path: str) -> tuple[Artifact, Iterator[bytes]]:
    """Return one file that the job left, and its bytes; raises ``NotFound``."""
    for item in artifacts(context, job):
        if item.path == path:
            return item, context.objects.read(artifacts_prefix(job.job_id, job.attempt) + path)
    raise NotFound(f"the job left no artifact {path!r}")


def save_artifact_listing(context: JobContext, job: Job, listing: list[Artifact]) -> None:
    """Write down what an attempt left; what is not in the listing is not there for clients."""
    data = json.dumps([asdict(item) for item in sorted(listing, key=lambda item: item.path)])
    context.objects.put(_listing_key(job.job_id, job.attempt), [data.encode()])


def _listing_key(job_id: str, attempt: int) -> str:
    return attempt_prefix(job_id, attempt) + "artifacts.json"


def _existing(job: Job, attempt: int | None) -> int:
    if attempt is None:
        return job.attempt
    if not 1 <= attempt <= job.attempt:
        raise NotFound(f"the job has no attempt {attempt}; its last one is {job.attempt}")
    return attempt
