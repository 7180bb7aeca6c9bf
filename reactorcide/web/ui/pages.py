"""The pages. Each shows answers of the API's routes, so that it can do nothing that they cannot."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flask import Blueprint, g, redirect, render_template, request, url_for
from pydantic import ValidationError
from werkzeug.wrappers import Response

from reactorcide.accounts import sessions
from reactorcide.domain.accounts import Scope
from reactorcide.domain.errors import Forbidden, NotFound, Unauthorized
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import RunStatus
from reactorcide.jobs import events
from reactorcide.web.api import PREFIX
from reactorcide.web.api.accounts import routes as accounts
from reactorcide.web.api.accounts.schemas import AuditQuery
from reactorcide.web.api.artifacts import routes as artifacts
from reactorcide.web.api.artifacts.schemas import ArtifactHeader, ArtifactPath
from reactorcide.web.api.caches import routes as caches
from reactorcide.web.api.caches.schemas import CacheListQuery
from reactorcide.web.api.deliveries import routes as deliveries
from reactorcide.web.api.deliveries.schemas import DeliveryListQuery
from reactorcide.web.api.jobs import routes as jobs
from reactorcide.web.api.jobs.schemas import JobListQuery, JobPath, JobQuery
from reactorcide.web.api.logs import routes as logs
from reactorcide.web.api.logs.schemas import LogHeader, LogQuery
from reactorcide.web.api.projects import routes as projects
from reactorcide.web.api.projects.schemas import ProjectListQuery, ProjectPath, StatusListQuery
from reactorcide.web.api.queues import routes as queues
from reactorcide.web.api.runs import routes as runs
from reactorcide.web.api.runs.schemas import RunListQuery, RunPath
from reactorcide.web.api.schedules import routes as schedules
from reactorcide.web.api.secrets import routes as secrets
from reactorcide.web.api.service import routes as service
from reactorcide.web.api.webhooks import routes as webhooks
from reactorcide.web.api.webhooks.schemas import MessageListQuery, WebhookPath
from reactorcide.web.api.workers import routes as workers
from reactorcide.web.auth import caller, session_value
from reactorcide.web.errors import validation_failed
from reactorcide.web.services import services
from reactorcide.web.ui import markdown, signing
from reactorcide.web.ui.ask import ask, ask_response, ask_text, may_ask
from reactorcide.web.ui.graph import layout

_MAX_PROJECTS = 200
_MAX_NODES = 1000
_MAX_DELIVERIES = 20
_MAX_WEBHOOKS = 20
_MAX_WHYS = 20
"""How many of the jobs that wait have the reason beside."""
_MAX_FAILED_JOBS = 5
"""How many failed jobs of a run have their failed tests, or the end of their log, on its page."""
_MAX_FAILURES = 50
"""How many failed tests a job's page shows."""
_MAX_ARTIFACTS = 200
"""How many artifacts a job's page lists."""
_MAX_TEXT_BYTES = 1 << 20
"""A longer artifact is downloaded, not shown."""
_TAIL_LINES = 200
"""Lines of a log that are in the page, for those without its script."""
_PAGE_LINES = 500
"""Lines of a log that its script fetches at once."""
_END_LINES = 8
"""Lines of the log of a failed job without failed tests that are on its run's page."""
_MAX_TAIL_BYTES = 1 << 19
"""Longer lines are in the log alone."""
_MAX_TAIL_CHARS = 60_000
_MAX_END_CHARS = 4000
_NOT_STARTED = (JobStatus.QUEUED, JobStatus.SUBMITTED, JobStatus.SUBMIT_FAILED)
_EVENTS = ("push", "pull_request_opened", "pull_request_updated", "tag_created", "schedule", "manual")

Json = Mapping[str, Any]

ui = Blueprint("ui", __name__, template_folder="templates")

ui.get("/sign-in", endpoint="show_sign_in")(signing.sign_in_page)
ui.post("/sign-in")(signing.sign_in)
ui.post("/sign-out")(signing.sign_out)


@ui.before_request
def _remember_last_event() -> None:
    # Before anything of the page is read: what changes later is in the events after this one.
    g.last_event_id = events.last_id(services().jobs)


@ui.app_context_processor
def _of_every_page() -> dict[str, Any]:
    session, user = session_value(), g.get("user")
    has_events = "last_event_id" in g and user is not None
    return {
        "last_event_id": events.public_id(services().jobs, user, g.last_event_id) if has_events else None,
        "api": f"{request.script_root}{PREFIX}",
        "user": user,
        "csrf_token": None if session is None else sessions.csrf_token(session),
        "here": request.endpoint,
    }


@ui.get("/")
def home() -> Response:
    """Lead to the runs."""
    return redirect(url_for("ui.show_runs"))


@ui.get("/runs")
def show_runs() -> str:
    """Show what happened lately."""
    filters = _query(RunListQuery)
    listed = _projects()
    page = ask(runs.list_runs, query=filters)
    return render_template(
        "runs.html",
        page=page,
        next_url=_next_url(page),
        projects=listed,
        names={item["project_id"]: item["name"] for item in listed},
        statuses=[status.value for status in RunStatus],
        events=_EVENTS,
        filters=_filters(),
    )


@ui.get("/runs/<run_id>")
def show_run(run_id: str) -> str:
    """Show a run: what failed, its graph and its nodes."""
    run = ask(runs.show_run, path=RunPath(run_id=run_id), query=JobQuery())
    listed = ask(jobs.list_jobs, query=JobListQuery(run_id=run["run_id"], limit=_MAX_NODES))["jobs"]
    job_of = {job["job_id"]: job for job in listed}
    failed = sorted(
        (node for node in run["nodes"] if node["status"] == "failed"), key=lambda node: node["allow_failure"]
    )
    tests = {node["name"]: _tests(node["job_id"]) for node in failed[:_MAX_FAILED_JOBS] if node["job_id"]}
    ends = {
        node["name"]: _tail(node["job_id"], _END_LINES, _MAX_END_CHARS).text
        for node in failed
        if node["name"] in tests and not tests[node["name"]]["failures"] and not node["allow_failure"]
    }
    project = _project_of(run)
    return render_template(
        "run.html",
        run=run,
        project=project,
        may_change=_may_change(project),
        job_of=job_of,
        graph=layout(run["nodes"]),
        failed=failed,
        tests=tests,
        ends=ends,
        whys=_whys(listed),
        file=ask_text(runs.show_run_file, path=RunPath(run_id=run["run_id"])),
        is_over=run["completed_at"] is not None,
    )


@ui.get("/jobs")
def show_jobs() -> str:
    """Show jobs, newest first."""
    page = ask(jobs.list_jobs, query=_query(JobListQuery, many=("status",)))
    return render_template(
        "jobs.html",
        page=page,
        next_url=_next_url(page),
        statuses=[status.value for status in JobStatus],
        filters=_filters(),
    )


@ui.get("/jobs/<job_id>")
def show_job(job_id: str) -> str:
    """Show a job: its failed tests first, then its summary, its log and its artifacts."""
    path = JobPath(job_id=job_id)
    job = ask(jobs.show_job, path=path, query=JobQuery())
    run = None
    if job["run_id"] is not None:
        run = ask(runs.show_run, path=RunPath(run_id=job["run_id"]), query=JobQuery())
    number = request.args.get("attempt", "")
    attempt = int(number) if number.isdecimal() and 1 <= int(number[:9]) <= job["attempt"] else job["attempt"]
    summary = _text_if_any(artifacts.show_summary, path=path)
    is_over = job["completed_at"] is not None
    tail = _tail(job_id, _TAIL_LINES, _MAX_TAIL_CHARS, attempt or None)
    # Of a failed job, and one that runs, the end of the log is shown first.
    shows_end = job["status"] == "failed" or not is_over
    return render_template(
        "job.html",
        job=job,
        run=run,
        may_change=_may_change(_project_of(run)),
        attempt=attempt,
        attempts=ask(jobs.list_attempts, path=path)["attempts"],
        tests=_tests(job_id),
        max_failures=_MAX_FAILURES,
        summary=None if summary is None else markdown.html(summary),
        listing=ask(artifacts.list_artifacts, path=path),
        max_artifacts=_MAX_ARTIFACTS,
        max_text_bytes=_MAX_TEXT_BYTES,
        why=None if is_over or job["status"] == "running" else ask(jobs.explain_job, path=path),
        tail=tail,
        first_line=max(0, tail.lines - 1) // _PAGE_LINES * _PAGE_LINES + 1 if shows_end else 1,
        page_lines=_PAGE_LINES,
        tail_lines=_TAIL_LINES,
        is_over=is_over,
    )


@ui.get("/jobs/<job_id>/artifacts/<path:path>")
def show_artifact(job_id: str, path: str) -> str:
    """Show an artifact that is text."""
    job = ask(jobs.show_job, path=JobPath(job_id=job_id), query=JobQuery())
    listing = ask(artifacts.list_artifacts, path=JobPath(job_id=job_id))["artifacts"]
    item = next((item for item in listing if item["path"] == path), None)
    if item is None:
        raise NotFound(f"the job has no artifact {path}")
    text = None
    if item["size"] <= _MAX_TEXT_BYTES:
        text = _decoded(
            artifacts.get_artifact(ArtifactHeader(), ArtifactPath(job_id=job_id, path=path), None)
        )
    return render_template("artifact.html", job=job, item=item, text=text)


@ui.get("/queues")
def show_queues() -> str:
    """Show what waits, why, and since when."""
    waiting = JobListQuery(status=list(_NOT_STARTED), limit=50)
    page = ask(jobs.list_jobs, query=waiting)
    return render_template(
        "queues.html",
        queues=ask(queues.list_queues)["queues"],
        waiting=page,
        whys=_whys(page["jobs"]),
    )


@ui.get("/workers")
def show_workers() -> str:
    """Show who runs what."""
    listed = ask(workers.list_workers)["workers"]
    running = ask(jobs.list_jobs, query=JobListQuery(status=[JobStatus.RUNNING], limit=200))["jobs"]
    return render_template("workers.html", workers=listed, job_of={job["job_id"]: job for job in running})


@ui.get("/projects")
def show_projects() -> str:
    """Show the projects that the caller may see."""
    page = ask(projects.list_projects, query=_query(ProjectListQuery))
    return render_template("projects.html", page=page, next_url=_next_url(page))


@ui.get("/projects/<project_id>")
def show_project(project_id: str) -> str:
    """Show a project: its runs, schedules, deliveries, statuses, secrets, caches, members and settings."""
    project = ask(projects.show_project, path=ProjectPath(project_id=project_id))
    name = project["project_id"]
    filters = {key: value for key, value in _filters().items() if key in ("branch", "cursor")}
    page = ask(runs.list_runs, query=_checked(RunListQuery, {"project": name} | filters))
    return render_template(
        "project.html",
        project=project,
        may_change=_may_change(project),
        page=page,
        next_url=_next_url(page),
        filters=filters,
        schedules=_ask_if_allowed(schedules.list_schedules, path=ProjectPath(project_id=name)),
        secrets=_ask_if_allowed(secrets.list_secrets, path=ProjectPath(project_id=name)),
        caches=_ask_if_allowed(caches.list_caches, query=CacheListQuery(project=name, limit=50)),
        deliveries=_ask_if_allowed(
            deliveries.list_deliveries,
            path=ProjectPath(project_id=name),
            query=DeliveryListQuery(limit=_MAX_DELIVERIES),
        ),
        statuses=_ask_if_allowed(
            projects.list_statuses,
            path=ProjectPath(project_id=name),
            query=StatusListQuery(limit=_MAX_DELIVERIES),
        ),
    )


@ui.get("/account")
def show_account() -> str:
    """Show the caller, with the caller's tokens and webhooks."""
    own = ask(accounts.list_tokens)["tokens"] if may_ask(accounts.list_tokens) else None
    me = ask(accounts.show_me)
    return render_template("account.html", me=me, tokens=own, webhooks=_webhooks(me["user_id"]))


def _webhooks(user_id: str) -> list[Json] | None:
    """Return the newest webhooks of the caller, each with its last messages; ``None`` without the scope."""
    if not may_ask(webhooks.list_webhooks):
        return None
    # An admin is shown those of everybody.
    listed = [item for item in ask(webhooks.list_webhooks)["webhooks"] if item["user_id"] == user_id]
    return [
        item
        | ask(
            webhooks.list_messages,
            path=WebhookPath(webhook_id=item["webhook_id"]),
            query=MessageListQuery(limit=_MAX_DELIVERIES),
        )
        for item in listed[:_MAX_WEBHOOKS]
    ]


@ui.get("/admin")
def show_admin() -> str:
    """Show whether the service works and what it keeps, its users and secrets, and the audit."""
    page = ask(accounts.show_audit, query=_query(AuditQuery))
    users = ask(accounts.list_users)["users"]
    return render_template(
        "admin.html",
        users=users,
        names={user["user_id"]: user["username"] for user in users},
        audit=page,
        next_url=_next_url(page),
        ready=ask(service.ready),
        retention=ask(service.show_retention),
        secrets=ask(secrets.list_shared_secrets)["secrets"],
    )


def _projects() -> Sequence[Json]:
    listed: Sequence[Json] = ask(projects.list_projects, query=ProjectListQuery(limit=_MAX_PROJECTS))[
        "projects"
    ]
    return listed


def _project_of(run: Json | None) -> Json | None:
    if run is None or run["project_id"] is None:
        return None
    project: Json = ask(projects.show_project, path=ProjectPath(project_id=run["project_id"]))
    return project


def _may_change(project: Json | None) -> bool:
    """Return whether the caller may start and cancel what is of a project that they see, or their own."""
    if Scope.JOBS_WRITE not in caller().scopes:
        return False
    return project is None or caller().is_admin or project["role"] in (ProjectRole.WRITE, ProjectRole.OWNER)


def _whys(listed: Sequence[Json]) -> dict[str, str]:
    """Return why jobs wait, of the first that do, by their ids."""
    waiting = [job["job_id"] for job in listed if job["status"] in _NOT_STARTED]
    return {
        job_id: ask(jobs.explain_job, path=JobPath(job_id=job_id))["reason"] for job_id in waiting[:_MAX_WHYS]
    }


def _tests(job_id: str) -> Json:
    tests: Json = ask(artifacts.show_tests, path=JobPath(job_id=job_id))
    return tests


def _ask_if_allowed(route: Any, **arguments: Any) -> Any:
    """Return the answer of a route, or ``None`` if the caller may not have it."""
    try:
        return ask(route, **arguments)
    except (Forbidden, NotFound, Unauthorized):
        return None


class _Tail(NamedTuple):
    """The end of a log, and how many lines all of it has."""

    text: str
    lines: int


def _tail(job_id: str, lines: int, max_chars: int, attempt: int | None = None) -> _Tail:
    """Return the last lines of a log, no text where there is none, or where they are too long for a page."""
    try:
        answer = ask_response(
            logs.job_logs,
            header=LogHeader(),
            path=JobPath(job_id=job_id),
            query=LogQuery(tail=lines, attempt=attempt),
        )
    except NotFound:
        return _Tail("", 0)
    is_short = (answer.content_length or 0) <= _MAX_TAIL_BYTES
    text = answer.get_data().decode(errors="replace")[-max_chars:] if is_short else ""
    return _Tail(text, int(answer.headers[logs.LINES]))


def _text_if_any(route: Any, **arguments: Any) -> str | None:
    try:
        return ask_text(route, **arguments)
    except NotFound:
        return None


def _decoded(response: Response) -> str | None:
    """Return the text of a file, or ``None`` if it is none."""
    try:
        text = response.get_data().decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _filters() -> dict[str, str]:
    """Return the parameters of the page that say something; an empty field of a form does not."""
    return {name: value for name, value in request.args.items() if value}


def _query(model: Any, many: Sequence[str] = ()) -> Any:
    """Return the query of a route from the page's own; raises ``InvalidInput`` as the API does."""
    values: dict[str, Any] = dict(_filters())
    return _checked(model, values | {name: [values[name]] for name in many if name in values})


def _checked(model: Any, values: Mapping[str, Any]) -> Any:
    try:
        return model(**values)
    except ValidationError as exc:
        validation_failed(exc)


def _next_url(page: Json) -> str | None:
    """Return the address of the next page of a list."""
    if page["next_cursor"] is None:
        return None
    values = _filters() | (request.view_args or {}) | {"cursor": page["next_cursor"]}
    return url_for(request.endpoint or "ui.home", **values)
