"""Process deliveries: start the runs of an event, or record why there are none."""

import logging
from collections.abc import Sequence
from time import monotonic

from reactorcide import crashpoints
from reactorcide.deliveries import reading
from reactorcide.domain.deliveries import Delivery, DeliveryStatus, Outcome, TagTold
from reactorcide.domain.errors import (
    Busy,
    Conflict,
    InfrastructureError,
    InvalidInput,
    JobFailed,
    NotFound,
    ObjectNotFound,
)
from reactorcide.domain.events import EventName
from reactorcide.domain.forges import ForgeEvent, ForgeKind, Ignored
from reactorcide.domain.projects import Project, PullRequests
from reactorcide.domain.runs import Comparison, Run, RunSource, RunStatus
from reactorcide.forges.repositories import repository_at
from reactorcide.lib.clock import now_ms
from reactorcide.runs import RunContext
from reactorcide.runs.request import Start
from reactorcide.runs.start import Skipped, is_marked, start_for_project
from reactorcide.store import Records

log = logging.getLogger("reactorcide.deliveries")

TRY_FOR_MS = 600_000
"""How long fetching a missing commit is retried."""
_MIN_PAUSE_MS = 2_000
_MAX_PAUSE_MS = 60_000
_MAX_REASON_CHARS = 300
_SKIPPED = "ignored: [skip ci] in the commit's message"
_OPEN_PULL_REQUEST = (EventName.PULL_REQUEST_OPENED, EventName.PULL_REQUEST_UPDATED)


class _Settled(Exception):
    """The delivery is no longer waiting: another process has handled it."""


class _ToldBefore(Exception):
    """Another delivery reported the same tag, and started its runs."""

    def __init__(self, delivery_id: str) -> None:
        self.delivery_id = delivery_id


def work_on(context: RunContext, delivery: Delivery) -> None:
    """Start the runs of a delivery, or record why there are none; safe to repeat, also concurrently.

    The runs and the outcome of the delivery are committed together. If a dependency fails, that is recorded,
    and the delivery is retried later.
    """
    began = monotonic()
    tried_at_ms = delivery.tried_at_ms or now_ms()
    for_ms = now_ms() - tried_at_ms
    gives_up = for_ms >= TRY_FOR_MS
    try:
        outcome = _outcome(context, delivery, gives_up=gives_up)
    except (JobFailed, InfrastructureError, Busy) as exc:
        problem = str(exc)
    except Exception:
        log.exception("a delivery failed unexpectedly", extra={"delivery_id": delivery.delivery_id})
        problem = "unexpectedly; the service's log says more"
        if gives_up:
            _settle(context, delivery, _failed(problem))
            return
    else:
        if outcome is not None:
            _settle(context, delivery, outcome)
        log.info(
            "delivery is processed in %.0f ms",
            1000 * (monotonic() - began),
            extra={"delivery_id": delivery.delivery_id, "project_id": delivery.project_id},
        )
        return
    pause_ms = min(_MAX_PAUSE_MS, max(_MIN_PAUSE_MS, for_ms))
    context.jobs.store.deliveries.retry(
        delivery,
        f"it is tried again: {problem[:_MAX_REASON_CHARS]}",
        due_at_ms=now_ms() + pause_ms,
        tried_at_ms=tried_at_ms,
    )


def _settle(context: RunContext, delivery: Delivery, outcome: Outcome, twin_id: str | None = None) -> None:
    context.jobs.store.write(lambda tx: tx.deliveries.settle(delivery, outcome, twin_id))


def _outcome(context: RunContext, delivery: Delivery, *, gives_up: bool) -> Outcome | None:
    """Return the outcome of a delivery; ``None`` if it is stored already."""
    project = context.jobs.store.projects.find(delivery.project_id)
    if project is None:
        # It is removed with its project.
        return None
    if project.forge is ForgeKind.NONE:
        return _failed("the project names no forge any more")
    try:
        body = b"".join(context.jobs.objects.read(delivery.object_key))
        event = reading.read(project.forge, delivery.headers, body)
    except (InvalidInput, ObjectNotFound) as exc:
        return _failed(str(exc))
    if isinstance(event, Ignored):
        return _ignored(event.reason)
    refusal = _refusal(project, event)
    if refusal is not None:
        return _ignored(refusal)
    try:
        _start(context, project, delivery, event, gives_up=gives_up)
    except Skipped:
        return Outcome(status=DeliveryStatus.IGNORED, sentence=_SKIPPED)
    except _ToldBefore as exc:
        outcome = Outcome(
            status=DeliveryStatus.IGNORED,
            sentence=f"ignored: the delivery {exc.delivery_id} has reported the same tag",
            tag=TagTold.of(event),
        )
        _settle(context, delivery, outcome, exc.delivery_id)
    except Conflict:
        return _ignored("the project is disabled")
    except (_Settled, NotFound):
        log.info("a delivery was processed elsewhere, or its project is gone")
    return None


def _refusal(project: Project, event: ForgeEvent) -> str | None:
    """Return a phrase that says why a project starts nothing for an event; ``None`` if it does."""
    if project.disabled:
        return "the project is disabled"
    if (path := _own_path(project, event)) is not None:
        return f"it is about the repository {event.repository}, and the project's is {path}"
    if project.allowed_events is not None and event.name not in project.allowed_events:
        return f"{event.name} is none of the project's allowed events"
    if event.name.is_pull_request and project.pull_requests is PullRequests.OFF:
        return "the project takes no pull requests"
    if is_marked(event.message):
        return "[skip ci] in the commit's message"
    return None


def _own_path(project: Project, event: ForgeEvent) -> str | None:
    """Return the path of a project's repository if the event is from another one; ``None`` otherwise.

    The webhook of an organization sends events of all its repositories.
    """
    try:
        path = repository_at(project.git_url, project.forge_url).path
    except InvalidInput:
        # A repository that is not at a forge.
        return None
    own, reported = path.lower(), event.repository.lower()
    # Git may be served below a separate path.
    is_own = not reported or own == reported or own.endswith(f"/{reported}")
    return None if is_own else path


def _start(
    context: RunContext, project: Project, delivery: Delivery, event: ForgeEvent, *, gives_up: bool
) -> None:
    """Commit the runs of an event together with the outcome of its delivery."""
    tag = TagTold.of(event)

    def also(tx: Records, runs: Sequence[Run]) -> None:
        twin_id = None if tag is None or delivery.is_repeated else tx.deliveries.twin(delivery, tag)
        if twin_id is not None:
            raise _ToldBefore(twin_id)
        if not tx.deliveries.settle(delivery, _of_runs(runs, tag)):
            raise _Settled
        crashpoints.reached("delivery-runs-written")

    start_for_project(context, project.project_id, _request(project, event), also, gives_up=gives_up)


def _request(project: Project, event: ForgeEvent) -> Start:
    return Start(
        source=RunSource(git_ref=event.sha or event.ref),
        workflow=None,
        event={
            "name": event.name.value,
            "branch": event.branch,
            "tag": event.tag,
            "sha": event.sha,
            "ref": event.ref,
            "actor": event.actor,
            "number": "" if event.number is None else str(event.number),
            "base_branch": event.base_branch,
            "base_sha": event.base_sha,
            "head_url": event.head_url,
            "author": event.author,
        },
        comparison=_comparison(project, event),
        heeds_skip=True,
        # For a closed or merged pull request the project's own code runs.
        is_fork=event.is_fork and event.name in _OPEN_PULL_REQUEST,
    )


def _comparison(project: Project, event: ForgeEvent) -> Comparison | None:
    if event.name is EventName.PUSH:
        if event.before:
            return Comparison(sha=event.before)
        return Comparison(branch=project.default_branch, own_branch=event.branch)
    if event.name in _OPEN_PULL_REQUEST:
        return Comparison(branch=event.base_branch)
    if event.name is EventName.PULL_REQUEST_MERGED and event.sha:
        return Comparison(sha=event.base_sha or None, is_merge=True)
    return None


def _of_runs(runs: Sequence[Run], tag: TagTold | None) -> Outcome:
    run_ids = tuple(run.run_id for run in runs)
    failed = [run for run in runs if run.status is RunStatus.FAILED]
    if not runs:
        status, sentence = DeliveryStatus.IGNORED, "no workflow matches"
    elif len(failed) == len(runs):
        reason = (failed[0].reason or "").partition("\n")[0][:_MAX_REASON_CHARS]
        status, sentence = DeliveryStatus.FAILED, f"failed: {reason}"
    else:
        status = DeliveryStatus.STARTED
        sentence = "run started" if len(runs) == 1 else f"{len(runs)} runs started"
        if any(run.is_held for run in runs):
            sentence += ", waiting for approval"
    return Outcome(status=status, sentence=sentence, run_ids=run_ids, tag=tag)


def _ignored(reason: str) -> Outcome:
    return Outcome(status=DeliveryStatus.IGNORED, sentence=f"ignored: {reason}")


def _failed(reason: str) -> Outcome:
    return Outcome(status=DeliveryStatus.FAILED, sentence=f"failed: {reason[:_MAX_REASON_CHARS]}")
