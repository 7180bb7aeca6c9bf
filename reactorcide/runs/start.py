"""Start a run: evaluate a workflow at a commit, and commit the run with its nodes and first jobs."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from reactorcide import crashpoints
from reactorcide.domain.accounts import SERVICE_USER, User
from reactorcide.domain.audit import Action, Actor, AuditEntry, service
from reactorcide.domain.errors import Busy, Conflict, InfrastructureError, InvalidInput, JobFailed, KeyTaken
from reactorcide.domain.jobs import RequestKey
from reactorcide.domain.projects import Project, ProjectRole
from reactorcide.domain.runs import (
    Commit,
    Run,
)
from reactorcide.jobs import access, ending, git_access
from reactorcide.jobs.dependents import Change, Followed, before_start
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import ANY_JOB
from reactorcide.outbox import statuses
from reactorcide.runs import RunContext, uploaded
from reactorcide.runs.approve import needs_approval
from reactorcide.runs.new_run import NewRun, failed_run, is_of_delivery, new_run
from reactorcide.runs.request import Start
from reactorcide.store import Records

log = logging.getLogger("reactorcide.runs")

_FETCH_S = 60.0
_SKIP = re.compile(r"\[(?:skip ci|ci skip)\]", re.IGNORECASE)


class Skipped(Exception):
    """The commit's message skips CI."""


def is_marked(message: str) -> bool:
    """Return whether a commit's message skips CI."""
    return _SKIP.search(message) is not None


def start(context: RunContext, user: User, request: Start, key: RequestKey | None = None) -> tuple[Run, bool]:
    """Start a run and return it, and whether it is new: not with a key that was used before.

    When this returns the run is on disk, with its nodes and the jobs of ready nodes. An invalid file makes a
    failed run with all errors. Raises ``InvalidInput`` if the source is not available or has no such
    workflow, ``NotFound`` or ``Forbidden`` if ``user`` may not start runs of the project, ``Busy``, and
    ``Conflict`` if the key was used for something else or the project is disabled.
    """
    earlier = None if key is None else _started_with(context, user, key)
    if earlier is not None:
        return earlier, False
    project = None
    if request.project is not None:
        project = access.project(context.jobs, user, request.project, ProjectRole.WRITE)
        request = _of_project(context, project, request)
    try:
        commit = _commit(context, user, request)
    except JobFailed as exc:
        raise InvalidInput(str(exc), "git_url" if request.source.source_id is None else "source_id") from exc
    if project is not None:
        _check_branch(request.event, commit)
    event = _event(request, project, commit)
    evaluation = context.evaluator.evaluate(
        commit,
        request.workflow,
        event,
        user_id=user.user_id,
        changed=request.changed,
        variables=request.variables,
        environment=request.environment,
        jobs=request.jobs,
    )
    new = new_run(context, user, request, project, commit, event, evaluation)

    def also(tx: Records, runs: Sequence[Run]) -> None:
        if key is not None:
            tx.request_keys.add(key, user.user_id, new.run.run_id, now_ms=new.run.created_at_ms)

    try:
        (run,) = _write(context, [new], request, user.actor, also)
    except KeyTaken:
        # Used by the same request, sent twice at the same time.
        earlier = None if key is None else _started_with(context, user, key)
        if earlier is None:
            raise
        return earlier, False
    return run, True


def start_for_project(
    context: RunContext,
    project_id: str,
    request: Start,
    also: Callable[[Records, Sequence[Run]], None] = lambda tx, runs: None,
    *,
    gives_up: bool = False,
) -> list[Run]:
    """Start the runs of a project for an event, such as a delivery or a due time, and return them.

    If ``request`` names no workflow, a run of each workflow that the event starts, perhaps none.
    ``also`` is called with the runs in the transaction that commits them, perhaps twice or on another
    thread, and may only read and write on its ``tx``: either all is written or nothing. An error in it
    means that nothing is.

    A workflow that cannot be evaluated is a failed run. So is, if the caller ``gives_up``, a commit that is
    not available; otherwise ``JobFailed``, ``InfrastructureError`` or ``Busy`` is raised, and trying again
    later may help. Raises ``NotFound`` if there is no such project, ``Conflict`` if it is disabled, and
    ``Skipped`` if the commit says so.
    """
    project = context.jobs.store.projects.get(project_id)
    creator = context.jobs.store.projects.creator(project_id)
    request = _of_project(context, project, request)
    try:
        commit = _commit(context, SERVICE_USER, request)
        if request.heeds_skip and is_marked(commit.message):
            raise Skipped
        event = _event(request, project, commit)
        changed = commit.changed if request.changed is None else request.changed
        if request.workflow is None:
            evaluations = context.evaluator.evaluate_all(commit, event, user_id=creator, changed=changed)
        else:
            one = context.evaluator.evaluate(
                commit,
                request.workflow,
                event,
                user_id=creator,
                changed=changed,
                variables=request.variables,
            )
            evaluations = [one]
    except InvalidInput as exc:
        new = [failed_run(request, project, str(exc))]
    except (JobFailed, InfrastructureError, Busy) as exc:
        if not gives_up:
            raise
        new = [failed_run(request, project, str(exc))]
    else:
        new = [new_run(context, SERVICE_USER, request, project, commit, event, one) for one in evaluations]
    # Only here: a manual start may leave jobs out, or use the name of any event.
    new = [replace(item, run=replace(item.run, status_context=statuses.context_of(item.run))) for item in new]
    return _write(context, new, request, service(), also)


def _of_project(context: RunContext, project: Project, request: Start) -> Start:
    """Return the request for the project's repository; raises ``Conflict`` if the project is disabled."""
    access.check_enabled(project)
    source = replace(
        request.source,
        git_url=context.jobs.store.projects.git_url(project.project_id),
        git_ref=request.source.git_ref or project.default_branch,
    )
    return replace(request, source=source, git_access=git_access.of_project(context.jobs, project.project_id))


def _event(request: Start, project: Project | None, commit: Commit) -> dict[str, str]:
    """Return the fields of the event, with missing ones taken from the commit."""
    event = {name: value for name, value in request.event.items() if value}
    if project is not None:
        event["project"] = project.name
        event.setdefault("tag", commit.tag or "")
    event.setdefault("branch", commit.branch or "")
    if commit.sha is not None:
        # The object of an annotated tag is not its commit.
        event["sha"] = commit.sha
    if commit.base_sha is not None:
        event["base_sha"] = commit.base_sha
    event.setdefault("message", commit.message)
    return event


def _write(
    context: RunContext,
    new: Sequence[NewRun],
    request: Start,
    by: Actor,
    also: Callable[[Records, Sequence[Run]], None],
) -> list[Run]:
    """Commit runs with their nodes and first jobs, and with what ``also`` writes; return them."""

    def write(tx: Records) -> tuple[list[Run], list[Followed]]:
        followed = [_add(tx, one, request, by) for one in new]
        runs = [tx.runs.get(one.run.run_id) for one in new]
        also(tx, runs)
        return runs, followed

    runs, followed = context.jobs.store.write(write)
    for run in runs:
        log.info("run is %s", run.status, extra={"run_id": run.run_id, "workflow": run.workflow_id})
    context.jobs.notifier.announce(ANY_JOB)
    crashpoints.reached("run-committed")
    for item in followed:
        ending.after_commit(context.jobs, item)
    return runs


def _add(tx: Records, new: NewRun, request: Start, by: Actor) -> Followed:
    run = new.run
    # A manual start is meant for exactly this commit.
    is_by_hand = run.user_id != SERVICE_USER.user_id
    is_held = not is_by_hand and needs_approval(tx, run, run.created_at_ms)
    run = before_start(replace(run, is_held=is_held))
    added = tx.runs.add(run, new.files, new.nodes, variables=new.variables, secrets=request.secrets)
    at_ms = run.created_at_ms
    tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.RUN_START, subject=run.run_id))
    change = Change(tx, now_ms=at_ms)
    change.enter(added)
    return change.followed()


def _check_branch(event: Mapping[str, str], commit: Commit) -> None:
    """Raise ``InvalidInput`` if the branch or tag of the event is not that of the commit.

    The rules of a project's secrets depend on them.
    """
    for kind, actual in (("branch", commit.branch), ("tag", commit.tag)):
        if event.get(kind) and event[kind] != actual:
            raise InvalidInput(
                f"the {kind} {event[kind]} of the event is not the one that ref leads to; leave it out, and "
                f"name the {kind} in ref",
                "event",
            )


def _started_with(context: RunContext, user: User, key: RequestKey) -> Run | None:
    stored = context.jobs.store.request_keys.find(user.user_id, key, now_ms=now_ms())
    if stored is None:
        return None
    run_id, is_same = stored
    run = context.jobs.store.runs.find(run_id) if is_same else None
    if run is None:
        raise Conflict("this Idempotency-Key was used for something else; choose another key")
    return run


def _commit(context: RunContext, user: User, request: Start) -> Commit:
    """Return the workflow files for a request; raises ``JobFailed`` if they are not available."""
    source, deadline = request.source, monotonic() + _FETCH_S
    if source.source_id is not None:
        return uploaded.commit(
            context.jobs, user, source.source_id, repository=request.repository, deadline=deadline
        )
    git_url = source.git_url or ""
    commit = context.commits.commit(
        git_url,
        source.git_ref,
        user.user_id,
        deadline=deadline,
        comparison=request.comparison,
        access=request.git_access,
        # Costs a fetch of the history.
        asks_reachable=request.project is not None and not is_of_delivery(user, request.event),
    )
    if not (request.is_fork and user.user_id == SERVICE_USER.user_id):
        return commit
    # Untrusted code must not change the workflow, only its input.
    base_ref = request.event.get("base_sha") or request.event.get("base_branch")
    if not base_ref:
        raise JobFailed("the base of the pull request, which has the workflow files, is not known")
    base = context.commits.commit(
        git_url, base_ref, user.user_id, deadline=deadline, access=request.git_access
    )
    return replace(commit, files=base.files, base_sha=base.sha)
