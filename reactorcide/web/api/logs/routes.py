"""Routes on logs and status changes, which can be followed."""

import re
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

from flask import Response, jsonify, request
from werkzeug.datastructures import Range
from werkzeug.http import parse_range_header

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import Job
from reactorcide.domain.runs import RunEvent
from reactorcide.jobs import StoredJobs, access, events, logs
from reactorcide.jobs.logs import LogBytes, LogPart, LogPosition
from reactorcide.lib.clock import rfc3339
from reactorcide.web import errors, sse
from reactorcide.web.api.jobs.schemas import JobPath
from reactorcide.web.api.lists import check_user
from reactorcide.web.api.logs.schemas import (
    LOG_POSITION,
    EventsHeader,
    EventsQuery,
    LogHeader,
    LogQuery,
    LogSearchQuery,
    LogSearchResponse,
)
from reactorcide.web.api.media import JOB_EVENTS, LOG, LOG_EVENTS
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse
from reactorcide.web.auth import authenticator, caller
from reactorcide.web.services import services
from reactorcide.web.streams import stream

_LAST_ID = "Last-Event-ID"
_START = "X-Log-Position"
LINES = "X-Log-Lines"
_SEARCH_S = 2.0
_LAST_NONE = re.compile(r"bytes=[ \t]*-0+[ \t]*", re.IGNORECASE)
"""A range that is valid and that nothing can satisfy (RFC 9110, 14.1.2); Werkzeug takes it for none."""

api = resource("logs", __name__, tag="jobs")


@api.get(
    "/jobs/<job_id>/logs",
    responses={
        200: {"content": {"text/plain": LOG, sse.MIMETYPE: LOG_EVENTS}},
        206: {"content": {"text/plain": LOG}},
        416: ErrorResponse,
    },
)
def job_logs(header: LogHeader, path: JobPath, query: LogQuery) -> Response:
    """Read the log of a job or a part of it, or follow it while it grows."""
    context = services().jobs
    job = access.get(context, caller(), path.job_id)
    wants_events = request.accept_mimetypes.best_match(["text/plain", sse.MIMETYPE]) == sse.MIMETYPE
    if query.service is not None:
        if wants_events or query.model_fields_set - {"service", "attempt"}:
            raise InvalidInput("service cannot be combined with a part of the log, or with follow", "service")
        chunks = logs.read_service(context, job, query.service, query.attempt)
        return Response(chunks, mimetype="text/plain")
    part = _part(query, follows=query.follow or wants_events)
    if not (query.follow or wants_events):
        log = logs.read(context, job, part)
        response = _answer(log)
        response.headers[LINES] = str(log.lines)
        return response
    start = logs.start_of(context, job, part, _sent_position(header.last_event_id, job, part))
    if wants_events:
        chunks = sse.with_keepalive(_log_events(context, job, part, start))
    else:
        chunks = logs.follow(context, job, part, start)
    mimetype = sse.MIMETYPE if wants_events else "text/plain"
    authenticate = authenticator()
    response = stream(
        services().slots,
        caller().share,
        context.notifier,
        chunks,
        mimetype,
        check=lambda: access.check_job(context, authenticate(), job),
    )
    response.headers[_START] = str(start)
    return response


def _log_events(
    context: StoredJobs, job: Job, part: LogPart, start: LogPosition
) -> Generator[bytes, None, None]:
    yield sse.mark(start)
    for piece in logs.follow_pieces(context, job, part, start):
        if piece is None:
            yield b""
        else:
            yield from sse.log_events(*piece)
    if context.notifier.closed:
        return
    ended = logs.as_it_is(context, job)
    end = {name: getattr(ended, name, None) for name in ("status", "exit_code", "error")}
    yield sse.event(end, name="end")


@api.get("/jobs/<job_id>/logs/search", responses={200: LogSearchResponse})
def search_log(path: JobPath, query: LogSearchQuery) -> Response:
    """Search the log of a job for a text, or for lines that look like errors."""
    context = services().jobs
    job = access.get(context, caller(), path.job_id)
    part = LogPart(attempt=query.attempt, from_line=query.from_line, stream=query.stream)
    matches = logs.search(context, job, part, query.text, limit=query.limit, timeout_s=_SEARCH_S)
    return jsonify({"matches": [asdict(item) for item in matches.matches], "next_line": matches.next_line})


@api.get("/events", responses={200: {"content": {sse.MIMETYPE: JOB_EVENTS}}, 404: ErrorResponse})
def follow_events(header: EventsHeader, query: EventsQuery) -> Response:
    """Follow the status changes of jobs, runs and nodes: of one's own, or of a `project`."""
    context = services().jobs
    user, field, sent = caller(), _LAST_ID, header.last_event_id
    check_user(user, None, "changes", of_project=query.project is not None)
    project_id = None if query.project is None else access.project(context, user, query.project).project_id
    if sent is None:
        field, sent = "after", query.after
    after = events.last_id(context) if sent is None else events.sent_id(context, user, sent)
    if after is None:
        raise InvalidInput(f"{field} is not an id of an event that the service sent you", field)
    chunks = sse.with_keepalive(_job_events(context, user, after, project_id))
    authenticate = authenticator()

    def check() -> None:
        current = authenticate()
        if project_id is not None:
            access.project(context, current, project_id)

    return stream(services().slots, user.share, context.notifier, chunks, sse.MIMETYPE, check=check)


def _job_events(
    context: StoredJobs, user: User, after: int, project_id: str | None
) -> Generator[bytes, None, None]:
    yield sse.mark(events.public_id(context, user, after))
    for event in events.follow(context, user, after, project_id):
        if event is None:
            yield b""
            continue
        public_id = events.public_id(context, user, event.event_id)
        if isinstance(event, RunEvent):
            yield sse.event(
                _run_event_json(event), event_id=public_id, name="run" if event.node is None else "node"
            )
            continue
        data = {
            "job_id": event.job_id,
            "name": event.name,
            "queue_name": event.queue_name,
            "from": event.status_from,
            "to": event.status_to,
            "attempt": event.attempt,
            "reason": event.reason,
            "at": rfc3339(event.at_ms),
            "run_id": event.run_id,
            "node": event.node,
        }
        yield sse.event(data, event_id=public_id)


def _run_event_json(event: RunEvent) -> dict[str, Any]:
    return {
        "run_id": event.run_id,
        "number": event.number,
        "workflow": event.workflow_id,
        "node": event.node,
        "from": event.status_from,
        "to": event.status_to,
        "attempt": event.attempt,
        "reason": event.reason,
        "at": rfc3339(event.at_ms),
    }


def _part(query: LogQuery, *, follows: bool) -> LogPart:
    """Return the requested part of a log; raises ``InvalidInput`` for impossible combinations."""
    for field in ("from_line", "lines"):
        if getattr(query, field) is not None:
            for other, is_there in (("tail", query.tail is not None), ("follow", follows)):
                if is_there:
                    raise InvalidInput(f"{field} cannot be combined with {other}", field)
    return LogPart(
        attempt=query.attempt,
        tail=query.tail,
        from_line=query.from_line,
        lines=query.lines,
        stream=query.stream,
        timestamps=query.timestamps,
    )


def _sent_position(sent: str | None, job: Job, part: LogPart) -> LogPosition | None:
    """Return the position that the client has read up to. It overrides ``tail``, sent again on reconnect."""
    match = LOG_POSITION.fullmatch(sent or "")
    if match is None:
        # No position was sent: the model refuses invalid ones.
        return None
    attempt = int(match[1] or part.attempt or job.attempt)
    if part.attempt not in (None, attempt):
        raise InvalidInput(f"{_LAST_ID} is of attempt {attempt}, not {part.attempt}", _LAST_ID)
    return LogPosition(attempt, int(match[2]))


def _answer(log: LogBytes) -> Response:
    """Return a part of a log as the answer, or the requested range of that part."""
    if log.changed is not None:
        return Response(log.chunks(), mimetype="text/plain")
    start, end, status = log.start, log.end, 200
    # Ranges are defined for GET alone (RFC 9110, 14.2).
    is_asked = request.method == "GET" and "If-Range" not in request.headers
    sent = request.headers.get("Range", "") if is_asked else ""
    requested = parse_range_header(sent)
    is_one = requested is not None and requested.units == "bytes" and len(requested.ranges) == 1
    if is_one or _LAST_NONE.fullmatch(sent):
        inside = None if requested is None else _inside(requested, end - start)
        if inside is None:
            response = errors.answer(416, f"the log has only {end - start} bytes")
            response.headers["Content-Range"] = f"bytes */{end - start}"
            return response
        content_range = f"bytes {inside[0]}-{inside[1] - 1}/{end - start}"
        start, end, status = start + inside[0], start + inside[1], 206
    response = Response(log.view.read(start, end), status, mimetype="text/plain")
    response.content_length = end - start
    response.headers["Accept-Ranges"] = "bytes"
    if status == 206:
        response.headers["Content-Range"] = content_range
    return response


def _inside(requested: Range, size_bytes: int) -> tuple[int, int] | None:
    """Return where a range begins and ends in so many bytes; ``None`` if nothing of it is there."""
    [(start, end)] = requested.ranges
    if start < 0:
        # All of it, if there are not as many bytes (RFC 9110, 14.1.2).
        start = max(0, size_bytes + start)
    return (start, size_bytes if end is None else min(end, size_bytes)) if start < size_bytes else None
