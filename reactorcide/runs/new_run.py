"""Building a run from a request and the evaluation of its workflow, before it is committed."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from reactorcide.domain.accounts import SERVICE_USER, User
from reactorcide.domain.caches import CacheScope, scope_of
from reactorcide.domain.events import EventName
from reactorcide.domain.projects import Project
from reactorcide.domain.runs import MAX_REASON_CHARS, Commit, JobTemplate, Node, Run, RunStatus
from reactorcide.domain.secrets import without_credentials
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.records import record
from reactorcide.runs import RunContext
from reactorcide.runs.evaluate import Evaluation
from reactorcide.runs.nodes import group_of, nodes_of
from reactorcide.runs.request import Start

NO_FILES_ID = "config"
"""The workflow name of a failed run whose workflow files are unavailable; it has no ``file``."""


@record
class NewRun:
    """A run before its commit."""

    run: Run
    files: Mapping[str, str]
    nodes: Sequence[tuple[Node, JobTemplate]] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def is_of_delivery(user: User, event: Mapping[str, str]) -> bool:
    """Return whether a forge's delivery names the commit, not a person or a schedule."""
    return user.user_id == SERVICE_USER.user_id and event.get("name") != EventName.SCHEDULE


def new_run(
    context: RunContext,
    user: User,
    request: Start,
    project: Project | None,
    commit: Commit,
    event: Mapping[str, str],
    evaluation: Evaluation,
) -> NewRun:
    """Return the run of an evaluated workflow."""
    is_trusted = not request.is_fork
    if project is not None and not is_of_delivery(user, event):
        # Anyone can add a commit to a repository, by a pull request of a fork.
        is_trusted = is_trusted and (commit.is_reachable or bool(commit.branch or commit.tag))
    owner = user.user_id if project is None else project.project_id
    group_owner = owner if is_trusted else f"{owner} {event.get('number', '')}"
    nodes, errors = nodes_of(context, evaluation, group_owner, request.environment, project, is_trusted)
    workflow_id = evaluation.workflow_id
    if project is not None and not evaluation.is_readable:
        workflow_id = (
            context.jobs.store.runs.last_workflow_id(project.project_id, evaluation.file)
            or workflow_id
            or NO_FILES_ID
        )
    run = replace(
        _run(user, request, project, event),
        workflow_id=workflow_id,
        workflow_name=evaluation.workflow_name,
        file=evaluation.file,
        sha=commit.sha,
        warnings=evaluation.warnings,
        cache_scope=_cache_scope(request, project, event, commit, is_trusted),
        is_trusted=is_trusted,
        **group_of(evaluation.concurrency, group_owner),
    )
    if errors or evaluation.skipped is not None:
        run = replace(
            run,
            status=RunStatus.FAILED if errors else RunStatus.SKIPPED,
            reason="\n".join(errors)[:MAX_REASON_CHARS] or evaluation.skipped,
            completed_at_ms=run.created_at_ms,
        )
    files = {path: commit.files[path].decode(errors="replace") for path in evaluation.files}
    return NewRun(run, files, nodes, evaluation.variables)


def failed_run(request: Start, project: Project, reason: str) -> NewRun:
    """Return the failed run of a commit whose workflow files are unavailable or cannot be evaluated."""
    event = {name: value for name, value in request.event.items() if value} | {"project": project.name}
    workflow_id = request.workflow or NO_FILES_ID
    run = _run(SERVICE_USER, request, project, event)
    run = replace(
        run,
        workflow_id=workflow_id,
        workflow_name=workflow_id,
        sha=event.get("sha"),
        status=RunStatus.FAILED,
        reason=reason[:MAX_REASON_CHARS],
        completed_at_ms=run.created_at_ms,
    )
    return NewRun(run, {})


def _run(user: User, request: Start, project: Project | None, event: Mapping[str, str]) -> Run:
    """Return a new run without a workflow yet."""
    created_at_ms = now_ms()
    return Run(
        run_id=new_id(),
        user_id=user.user_id,
        project_id=None if project is None else project.project_id,
        number=0,
        attempt=1,
        workflow_id="",
        workflow_name="",
        file="",
        event={name: value for name, value in event.items() if value},
        source=request.source,
        sha=None,
        status=RunStatus.RUNNING,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
    )


def _cache_scope(
    request: Start, project: Project | None, event: Mapping[str, str], commit: Commit, is_trusted: bool
) -> CacheScope:
    repository = request.repository
    if request.source.git_url is not None:
        url = without_credentials(request.source.git_url)
        repository = url.rstrip("/").removesuffix(".git").rstrip("/")
    default_branch = (project.default_branch if project else None) or commit.default_branch
    return scope_of(event, repository=repository, default_branch=default_branch, is_fork=not is_trusted)
