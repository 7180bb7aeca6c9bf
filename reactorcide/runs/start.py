"""Start a run: evaluate a workflow at a commit, and commit the run with its nodes and first jobs."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from reactorcide import crashpoints
from reactorcide.domain.accounts import SERVICE_USER, User
from reactorcide.domain.audit import Action, Actor, AuditEntry, service
from reactorcide.domain.caches import CacheScope, scope_of
from reactorcide.domain.errors import Busy, Conflict, InfrastructureError, InvalidInput, JobFailed, KeyTaken
from reactorcide.domain.events import EventName
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import RequestKey
from reactorcide.domain.projects import Project, ProjectRole
from reactorcide.domain.runs import (
    MAX_REASON_CHARS,
    Commit,
    Comparison,
    JobTemplate,
    Node,
    Run,
    RunSource,
    RunStatus,
    group_key,
)
from reactorcide.domain.secrets import without_credentials
from reactorcide.jobs import access, ending, git_access
from reactorcide.jobs.dependents import Change, Followed, before_start
from reactorcide.jobs.run_secrets import secrets_in
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.notifier import ANY_JOB
from reactorcide.outbox import statuses
from reactorcide.runs import RunContext, uploaded
from reactorcide.runs.approve import needs_approval
from reactorcide.runs.evaluate import Evaluation
from reactorcide.store import Records

log = logging.getLogger("reactorcide.runs")

NO_FILES_ID = "config"
"""The workflow of a failed run whose workflow files cannot be had; it has no ``file``."""
DEFAULT_REPOSITORY = "jobs"
"""What an uploaded source is called that has no name."""
_FETCH_S = 60.0
_SKIP = re.compile(r"\[(?:skip ci|ci skip)\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a run is to be made of."""

    source: RunSource
    project: str | None = None
    """The name or the id of the project whose repository is taken, at ``source.git_ref``."""
    workflow: str | None
    """Its id or the name of its file; ``None`` where there is only one."""
    event: Mapping[str, str]
    """The fields of the event; ``name`` is among them."""
    changed: Sequence[str] | None = None
    """The files that differ; ``None`` where that is not known, or git is asked by ``comparison``."""
    comparison: Comparison | None = None
    """What the commit is compared with."""
    heeds_skip: bool = False
    """Whether a commit whose message says ``[skip ci]`` starts nothing."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """In place of ``vars`` in the file."""
    git_access: GitAccess | None = None
    """What the project has for its repository."""
    repository: str = DEFAULT_REPOSITORY
    """What an uploaded source is called."""
    is_fork: bool = False
    """Whether the event is a pull request of a fork, so that the code is a stranger's."""
    base_sha: str | None = None
    """Of a pull request of a fork: the commit of the base that the workflow files are taken from."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of all jobs, and the values of ``${env:…}``; not for a run of a project."""
    jobs: Sequence[str] | None = None
    """The jobs that run, with those that they need; ``None``: all."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Values of ``${secret:…}`` by name; not for a run of a project, which has its own."""


class Skipped(Exception):
    """The commit's message says that nothing is to be started for it."""


def is_marked(message: str) -> bool:
    """Return whether a commit's message says that nothing is to be started for it."""
    return _SKIP.search(message) is not None


@dataclass(frozen=True, slots=True)
class _New:
    """A run that is about to be committed."""

    run: Run
    files: Mapping[str, str]
    nodes: Sequence[tuple[Node, JobTemplate]] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def start(context: RunContext, user: User, wanted: Start, key: RequestKey | None = None) -> tuple[Run, bool]:
    """Start a run and return it, and whether it is new: with a key that was used before it is not.

    When this returns the run is on disk, with its nodes and those jobs that wait for none. A file that is
    wrong makes a failed run with all that is wrong. Raises ``InvalidInput`` where the source cannot be had or
    has no such workflow, ``NotFound`` or ``Forbidden`` where ``user`` may not start runs of the project,
    ``Busy``, and ``Conflict`` where the key was used for something else or the project is disabled.
    """
    earlier = None if key is None else _started_with(context, user, key)
    if earlier is not None:
        return earlier, False
    project = None
    if wanted.project is not None:
        project = access.project(context.jobs, user, wanted.project, ProjectRole.WRITE)
        wanted = _of_project(context, project, wanted)
    try:
        commit = _commit(context, user, wanted)
    except JobFailed as exc:
        raise InvalidInput(str(exc), "git_url" if wanted.source.source_id is None else "source_id") from exc
    if project is not None:
        _check_branch(wanted.event, commit)
    event = _event(wanted, project, commit)
    found = context.evaluator.evaluate(
        commit,
        wanted.workflow,
        event,
        changed=wanted.changed,
        variables=wanted.variables,
        environment=wanted.environment,
        jobs=wanted.jobs,
    )
    new = _new(context, user, wanted, project, commit, event, found)

    def also(tx: Records, runs: Sequence[Run]) -> None:
        if key is not None:
            tx.request_keys.add(key, user.user_id, new.run.run_id, now_ms=new.run.created_at_ms)

    try:
        (run,) = _write(context, [new], wanted, user.actor, also)
    except KeyTaken:
        # By the same request, sent twice at the same time.
        earlier = None if key is None else _started_with(context, user, key)
        if earlier is None:
            raise
        return earlier, False
    return run, True


def start_for_project(
    context: RunContext,
    project_id: str,
    wanted: Start,
    also: Callable[[Records, Sequence[Run]], None] = lambda tx, runs: None,
    *,
    gives_up: bool = False,
) -> list[Run]:
    """Start the runs of a project for an event that no person has caused, and return them.

    Where ``wanted`` names no workflow that is a run of each one that answers to the event, perhaps none.
    ``also`` is called with the runs in the transaction that commits them, perhaps twice or on another
    thread, and may only read and write on its ``tx``: either all is written or nothing. An error in it
    means that nothing is.

    A workflow that cannot be evaluated is a failed run. So is, if the caller ``gives_up``, a commit that
    cannot be had; otherwise ``JobFailed``, ``InfrastructureError`` or ``Busy`` is raised, and trying again
    later may help. Raises ``NotFound`` where there is no such project, ``Conflict`` where it is disabled, and
    ``Skipped`` where the commit says so.
    """
    project = context.jobs.store.projects.get(project_id)
    wanted = _of_project(context, project, wanted)
    try:
        commit = _commit(context, SERVICE_USER, wanted)
        if wanted.heeds_skip and is_marked(commit.message):
            raise Skipped
        event = _event(wanted, project, commit)
        changed = commit.changed if wanted.changed is None else wanted.changed
        if wanted.workflow is None:
            found = context.evaluator.evaluate_all(commit, event, changed=changed)
        else:
            one = context.evaluator.evaluate(
                commit, wanted.workflow, event, changed=changed, variables=wanted.variables
            )
            found = [one]
    except InvalidInput as exc:
        new = [_without_files(wanted, project, str(exc))]
    except (JobFailed, InfrastructureError, Busy) as exc:
        if not gives_up:
            raise
        new = [_without_files(wanted, project, str(exc))]
    else:
        new = [_new(context, SERVICE_USER, wanted, project, commit, event, one) for one in found]
    # Only here: whoever starts a run by hand may leave jobs out, or give the name of any event.
    new = [replace(item, run=replace(item.run, status_context=statuses.context_of(item.run))) for item in new]
    return _write(context, new, wanted, service(), also)


def _of_project(context: RunContext, project: Project, wanted: Start) -> Start:
    """Return what is wanted of the project's repository; raises ``Conflict`` where it is disabled."""
    access.check_enabled(project)
    source = replace(
        wanted.source,
        git_url=context.jobs.store.projects.git_url(project.project_id),
        git_ref=wanted.source.git_ref or project.default_branch,
    )
    return replace(wanted, source=source, git_access=git_access.of_project(context.jobs, project.project_id))


def _event(wanted: Start, project: Project | None, commit: Commit) -> dict[str, str]:
    """Return the fields of the event, with what the commit says of those that are left out."""
    event = {name: value for name, value in wanted.event.items() if value}
    if project is not None:
        event["project"] = project.name
        event.setdefault("tag", commit.tag or "")
    event.setdefault("branch", commit.branch or "")
    if commit.sha is not None:
        # The object of an annotated tag is not its commit.
        event["sha"] = commit.sha
    event.setdefault("message", commit.message)
    return event


def _new(
    context: RunContext,
    user: User,
    wanted: Start,
    project: Project | None,
    commit: Commit,
    event: Mapping[str, str],
    found: Evaluation,
) -> _New:
    """Return the run of a workflow that was evaluated."""
    is_trusted = not wanted.is_fork
    is_of_delivery = user.user_id == SERVICE_USER.user_id and event["name"] != EventName.SCHEDULE
    if project is not None and not is_of_delivery:
        # Anybody may have a commit put into a repository, by a pull request of a fork.
        is_trusted = is_trusted and bool(commit.branch or commit.tag)
    owner = user.user_id if project is None else project.project_id
    group_owner = owner if is_trusted else f"{owner} {event.get('number', '')}"
    nodes, errors = _nodes(context, found, group_owner, wanted.environment, project, is_trusted)
    workflow_id = found.workflow_id
    if project is not None and not found.is_readable:
        workflow_id = (
            context.jobs.store.runs.last_workflow_id(project.project_id, found.file)
            or workflow_id
            or NO_FILES_ID
        )
    run = replace(
        _run(user, wanted, project, event),
        workflow_id=workflow_id,
        workflow_name=found.workflow_name,
        file=found.file,
        sha=commit.sha,
        warnings=found.warnings,
        cache_scope=_cache_scope(wanted, project, event, commit, is_trusted),
        is_trusted=is_trusted,
        **_group(found.concurrency, group_owner),
    )
    if errors or found.skipped is not None:
        run = replace(
            run,
            status=RunStatus.FAILED if errors else RunStatus.SKIPPED,
            reason="\n".join(errors)[:MAX_REASON_CHARS] or found.skipped,
            completed_at_ms=run.created_at_ms,
        )
    files = {path: commit.files[path].decode(errors="replace") for path in found.files}
    return _New(run, files, nodes, found.variables)


def _without_files(wanted: Start, project: Project, reason: str) -> _New:
    """Return the failed run of a commit whose workflow files cannot be had, or not be evaluated."""
    event = {name: value for name, value in wanted.event.items() if value} | {"project": project.name}
    workflow_id = wanted.workflow or NO_FILES_ID
    run = _run(SERVICE_USER, wanted, project, event)
    run = replace(
        run,
        workflow_id=workflow_id,
        workflow_name=workflow_id,
        sha=event.get("sha"),
        status=RunStatus.FAILED,
        reason=reason[:MAX_REASON_CHARS],
        completed_at_ms=run.created_at_ms,
    )
    return _New(run, {})


def _run(user: User, wanted: Start, project: Project | None, event: Mapping[str, str]) -> Run:
    """Return a run that is about to be started, of no workflow yet."""
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
        source=wanted.source,
        sha=None,
        status=RunStatus.RUNNING,
        created_at_ms=created_at_ms,
        updated_at_ms=created_at_ms,
    )


def _write(
    context: RunContext,
    new: Sequence[_New],
    wanted: Start,
    by: Actor,
    also: Callable[[Records, Sequence[Run]], None],
) -> list[Run]:
    """Commit runs with their nodes and first jobs, and with what ``also`` writes; return them."""

    def write(tx: Records) -> tuple[list[Run], list[Followed]]:
        followed = [_add(tx, one, wanted, by) for one in new]
        runs = [tx.runs.get(one.run.run_id) for one in new]
        also(tx, runs)
        return runs, followed

    runs, followed = context.jobs.store.write(write)
    for run in runs:
        log.info("run is %s", run.status, extra={"run_id": run.run_id, "workflow": run.workflow_id})
    context.jobs.notifier.announce(ANY_JOB)
    crashpoints.reached("run-committed")
    for item in followed:
        ending.hand_over(context.jobs, item)
    return runs


def _add(tx: Records, new: _New, wanted: Start, by: Actor) -> Followed:
    run = new.run
    # Whoever starts it by hand wants this very commit.
    is_by_hand = run.user_id != SERVICE_USER.user_id
    is_held = not is_by_hand and needs_approval(tx, run, run.created_at_ms)
    run = before_start(replace(run, is_held=is_held))
    added = tx.runs.add(run, new.files, new.nodes, variables=new.variables, secrets=wanted.secrets)
    at_ms = run.created_at_ms
    tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.RUN_START, subject=run.run_id))
    change = Change(tx, now_ms=at_ms)
    change.enter(added)
    return change.followed()


def _check_branch(event: Mapping[str, str], commit: Commit) -> None:
    """Raise ``InvalidInput`` where the event is one of another branch or tag than the commit.

    What the secrets of a project may be used for goes by them.
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


def _commit(context: RunContext, user: User, wanted: Start) -> Commit:
    """Return the workflow files of what is wanted; raises ``JobFailed`` where they cannot be had."""
    source, deadline = wanted.source, monotonic() + _FETCH_S
    if source.source_id is not None:
        return uploaded.commit(
            context.jobs, user, source.source_id, repository=wanted.repository, deadline=deadline
        )
    git_url = source.git_url or ""
    commit = context.commits.commit(
        git_url,
        source.git_ref,
        user.user_id,
        deadline=deadline,
        comparison=wanted.comparison,
        access=wanted.git_access,
    )
    if not (wanted.is_fork and user.user_id == SERVICE_USER.user_id):
        return commit
    # A stranger is not to say what runs, only on what.
    base_ref = wanted.base_sha or wanted.event.get("base_branch")
    if not base_ref:
        raise JobFailed("the base of the pull request is not known, which has the workflow files")
    base = context.commits.commit(
        git_url, base_ref, user.user_id, deadline=deadline, access=wanted.git_access
    )
    return replace(commit, files=base.files)


def _cache_scope(
    wanted: Start, project: Project | None, event: Mapping[str, str], commit: Commit, is_trusted: bool
) -> CacheScope:
    repository = wanted.repository
    if wanted.source.git_url is not None:
        url = without_credentials(wanted.source.git_url)
        repository = url.rstrip("/").removesuffix(".git").rstrip("/")
    default_branch = (project.default_branch if project else None) or commit.default_branch
    return scope_of(event, repository=repository, default_branch=default_branch, is_fork=not is_trusted)


def _nodes(
    context: RunContext,
    found: Evaluation,
    owner: str,
    environment: Mapping[str, str],
    project: Project | None,
    is_trusted: bool,
) -> tuple[list[tuple[Node, JobTemplate]], list[str]]:
    """Return the nodes of a run with the definitions of their jobs, and what is wrong with these."""
    nodes: list[tuple[Node, JobTemplate]] = []
    errors = list(found.errors)
    for item in found.nodes:
        try:
            template = _template(context, item, environment, project, is_trusted)
            context.jobs.rules.check_images(*_known_images(template))
        except InvalidInput as exc:
            errors.append(f"{found.file}: the job {item['name']!r}: {exc}")
            continue
        nodes.append((_node(item, owner), template))
    if errors:
        return [], errors
    # Each job masks the secrets of all.
    secrets = sorted({name for _, template in nodes for name in secrets_in(template)})
    return [(node, {**template, "secrets": secrets}) for node, template in nodes], []


def _node(item: Mapping[str, Any], owner: str) -> Node:
    return Node(
        name=item["name"],
        job_name=item["job_name"],
        needs=tuple(item["needs"]),
        condition=item["condition"],
        allow_failure=item["allow_failure"],
        max_parallel=item["max_parallel"],
        combination=item["combination"],
        skipped=item["skipped"],
        **_group(item["concurrency"], owner),
    )


def _group(concurrency: Mapping[str, str] | None, owner: str) -> dict[str, Any]:
    """Return what a run or a node has of its concurrency group, which belongs to ``owner``."""
    if concurrency is None:
        return {}
    return {"group_key": group_key(owner, concurrency["group"]), "when_full": concurrency["when_full"]}


def _template(
    context: RunContext,
    item: Mapping[str, Any],
    environment: Mapping[str, str],
    project: Project | None,
    is_trusted: bool,
) -> JobTemplate:
    """Return the definition of a node's job, with every default filled in: a repetition has the same."""
    defaults = context.defaults
    fields = dict(item["fields"])
    if project is not None and project.default_image is not None:
        fields.setdefault("runner_image", project.default_image)
    if project is not None and not is_trusted:
        # A stranger's code waits in no queue but the project's.
        fields.pop("queue_name", None)
    if project is not None and project.queue is not None:
        fields.setdefault("queue_name", project.queue)
    fields.setdefault("runner_image", defaults.image)
    fields["cpu_limit"] = defaults.cpus(fields.get("cpu_limit"))
    fields["memory_limit_bytes"] = defaults.memory_bytes(fields.get("memory_limit_bytes"))
    if "code_dir" in fields:
        fields.setdefault("job_dir", fields["code_dir"])
    kept = ("services", "artifacts_from", "checkout", "submodules", "caches")
    return {
        "fields": fields,
        "environment": item["environment"] | environment,
        **{name: item[name] for name in kept},
    }


def _known_images(template: JobTemplate) -> tuple[str | None, dict[str, str]]:
    """Return the image of a job and those of its services, without those that outputs of others name."""
    image = template["fields"]["runner_image"]
    of_services = {name: service["image"] for name, service in template["services"].items()}
    known = {name: image for name, image in of_services.items() if isinstance(image, str)}
    return image if isinstance(image, str) else None, known
