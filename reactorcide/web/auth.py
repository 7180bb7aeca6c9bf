"""Authentication and authorization: a request's token or session, and the scopes that each route needs."""

from collections.abc import Callable, Mapping
from secrets import compare_digest

from flask import Flask, g, request

from reactorcide.accounts import sessions, tokens
from reactorcide.domain.accounts import Anonymous, Caller, Scope
from reactorcide.domain.errors import Forbidden, Unauthorized
from reactorcide.domain.workers import RemoteWorker
from reactorcide.jobs.remote import registry
from reactorcide.web.api import PREFIX
from reactorcide.web.services import services

_Scopes = frozenset[Scope]

SESSION_COOKIE = "reactorcide_session"
CSRF_HEADER = "X-CSRF-Token"

_NO_TOKEN = None
_READ: _Scopes = frozenset({Scope.JOBS_READ})
_SUBMIT: _Scopes = frozenset({Scope.JOBS_WRITE})
# A route that changes something also returns it.
_CHANGE: _Scopes = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
_ADMIN: _Scopes = frozenset({Scope.ADMIN})
OF_WORKERS: _Scopes = frozenset()
"""A worker's secret, and no token of a user."""

_WORKER = f"{PREFIX}/worker"
_ATTEMPT = f"{_WORKER}/attempts/<job_id>/<int:attempt>"

# The scopes that each route needs. A missing route is refused, and a test reports it.
NEEDS: Mapping[str, _Scopes | None] = {
    "GET /metrics": _NO_TOKEN,
    "GET /api/health": _NO_TOKEN,
    "GET /api/docs": _NO_TOKEN,
    "GET /api/docs/<name>": _NO_TOKEN,
    f"GET {PREFIX}/openapi.json": _NO_TOKEN,
    f"GET {PREFIX}/schemas/workflow.json": _NO_TOKEN,
    f"GET {PREFIX}/health": _NO_TOKEN,
    f"GET {PREFIX}/ready": _NO_TOKEN,
    f"GET {PREFIX}/metrics": _NO_TOKEN,
    f"POST {PREFIX}/register": _NO_TOKEN,
    f"GET {PREFIX}/workers": _READ,
    f"POST {PREFIX}/workers": _ADMIN,
    f"POST {PREFIX}/workers/<worker_id>/drain": _ADMIN,
    f"POST {PREFIX}/workers/<worker_id>/resume": _ADMIN,
    f"DELETE {PREFIX}/workers/<worker_id>": _ADMIN,
    # It sends a registration token, which is valid once.
    f"POST {_WORKER}/register": _NO_TOKEN,
    f"POST {_WORKER}/sessions": OF_WORKERS,
    f"POST {_WORKER}/sessions/<session_id>/next": OF_WORKERS,
    f"GET {_WORKER}/attempts": OF_WORKERS,
    f"POST {_ATTEMPT}/renew": OF_WORKERS,
    f"PUT {_ATTEMPT}/log": OF_WORKERS,
    f"POST {_ATTEMPT}/handing-over": OF_WORKERS,
    f"POST {_ATTEMPT}/started": OF_WORKERS,
    f"POST {_ATTEMPT}/finish": OF_WORKERS,
    f"POST {_ATTEMPT}/try-again": OF_WORKERS,
    f"GET {_ATTEMPT}/source": OF_WORKERS,
    f"GET {_ATTEMPT}/inputs": OF_WORKERS,
    f"GET {_ATTEMPT}/needs": OF_WORKERS,
    f"POST {_ATTEMPT}/known-hosts": OF_WORKERS,
    f"PUT {_ATTEMPT}/artifacts/<path:path>": OF_WORKERS,
    f"POST {_ATTEMPT}/artifact-copies": OF_WORKERS,
    f"DELETE {_ATTEMPT}/artifacts": OF_WORKERS,
    f"PUT {_ATTEMPT}/listing": OF_WORKERS,
    f"PUT {_ATTEMPT}/report": OF_WORKERS,
    f"PUT {_ATTEMPT}/services/<service>/log": OF_WORKERS,
    f"POST {_ATTEMPT}/cache-lookups": OF_WORKERS,
    f"GET {_ATTEMPT}/caches/<cache_id>": OF_WORKERS,
    f"DELETE {_ATTEMPT}/caches/<cache_id>": OF_WORKERS,
    f"PUT {_ATTEMPT}/expected-caches": OF_WORKERS,
    f"GET {_ATTEMPT}/expected-caches": OF_WORKERS,
    f"PUT {_ATTEMPT}/caches": OF_WORKERS,
    f"GET {PREFIX}/queues": _READ,
    f"GET {PREFIX}/events": _READ,
    f"POST {PREFIX}/sources": _SUBMIT,
    f"GET {PREFIX}/sources/<source_id>": _SUBMIT,
    f"POST {PREFIX}/jobs": _SUBMIT,
    f"GET {PREFIX}/jobs": _READ,
    f"GET {PREFIX}/jobs/<job_id>": _READ,
    f"DELETE {PREFIX}/jobs/<job_id>": _CHANGE,
    f"PUT {PREFIX}/jobs/<job_id>/cancel": _CHANGE,
    f"POST {PREFIX}/jobs/<job_id>/cancel": _CHANGE,
    f"POST {PREFIX}/jobs/<job_id>/rerun": _CHANGE,
    f"PUT {PREFIX}/jobs/<job_id>/pin": _CHANGE,
    f"DELETE {PREFIX}/jobs/<job_id>/pin": _CHANGE,
    f"GET {PREFIX}/jobs/<job_id>/logs": _READ,
    f"GET {PREFIX}/jobs/<job_id>/logs/search": _READ,
    f"GET {PREFIX}/jobs/<job_id>/attempts": _READ,
    f"GET {PREFIX}/jobs/<job_id>/why": _READ,
    f"GET {PREFIX}/jobs/<job_id>/artifacts": _READ,
    f"GET {PREFIX}/jobs/<job_id>/artifacts/<path:path>": _READ,
    f"GET {PREFIX}/jobs/<job_id>/artifacts.tar.gz": _READ,
    f"GET {PREFIX}/jobs/<job_id>/tests": _READ,
    f"GET {PREFIX}/jobs/<job_id>/summary": _READ,
    f"POST {PREFIX}/runs": _SUBMIT,
    f"GET {PREFIX}/runs": _READ,
    f"GET {PREFIX}/runs/<run_id>": _READ,
    f"GET {PREFIX}/runs/<run_id>/file": _READ,
    f"POST {PREFIX}/runs/<run_id>/approve": _CHANGE,
    f"POST {PREFIX}/runs/<run_id>/cancel": _CHANGE,
    f"POST {PREFIX}/runs/<run_id>/rerun": _CHANGE,
    f"DELETE {PREFIX}/runs/<run_id>": _CHANGE,
    f"PUT {PREFIX}/runs/<run_id>/pin": _CHANGE,
    f"DELETE {PREFIX}/runs/<run_id>/pin": _CHANGE,
    f"POST {PREFIX}/projects": _CHANGE,
    f"GET {PREFIX}/projects": _READ,
    f"GET {PREFIX}/projects/<project_id>": _READ,
    f"GET {PREFIX}/projects/<project_id>/badge.svg": _READ,
    f"PATCH {PREFIX}/projects/<project_id>": _CHANGE,
    f"DELETE {PREFIX}/projects/<project_id>": _CHANGE,
    f"POST {PREFIX}/projects/<project_id>/webhook-secret": _CHANGE,
    f"DELETE {PREFIX}/projects/<project_id>/webhook-secret": _CHANGE,
    # A delivery is signed.
    f"POST {PREFIX}/hooks/<project_id>": _NO_TOKEN,
    f"GET {PREFIX}/projects/<project_id>/deliveries": _CHANGE,
    f"GET {PREFIX}/projects/<project_id>/deliveries/<delivery_id>": _CHANGE,
    f"POST {PREFIX}/projects/<project_id>/deliveries/<delivery_id>/redeliver": _CHANGE,
    f"GET {PREFIX}/projects/<project_id>/statuses": _READ,
    f"POST {PREFIX}/projects/<project_id>/deploy-key": _CHANGE,
    f"DELETE {PREFIX}/projects/<project_id>/deploy-key": _CHANGE,
    f"POST {PREFIX}/projects/<project_id>/check": _CHANGE,
    f"POST {PREFIX}/webhooks": _CHANGE,
    f"GET {PREFIX}/webhooks": _CHANGE,
    f"GET {PREFIX}/webhooks/<webhook_id>": _CHANGE,
    f"PATCH {PREFIX}/webhooks/<webhook_id>": _CHANGE,
    f"POST {PREFIX}/webhooks/<webhook_id>/secret": _CHANGE,
    f"DELETE {PREFIX}/webhooks/<webhook_id>": _CHANGE,
    f"GET {PREFIX}/webhooks/<webhook_id>/messages": _CHANGE,
    f"POST {PREFIX}/webhooks/<webhook_id>/messages/<message_id>/redeliver": _CHANGE,
    f"PUT {PREFIX}/projects/<project_id>/members": _CHANGE,
    f"DELETE {PREFIX}/projects/<project_id>/members/<user_id>": _CHANGE,
    f"GET {PREFIX}/caches": _READ,
    f"DELETE {PREFIX}/caches/<cache_id>": _CHANGE,
    f"GET {PREFIX}/projects/<project_id>/secrets": _CHANGE,
    f"PUT {PREFIX}/projects/<project_id>/secrets/<path:name>": _CHANGE,
    f"DELETE {PREFIX}/projects/<project_id>/secrets/<path:name>": _CHANGE,
    f"GET {PREFIX}/secrets": _ADMIN,
    f"PUT {PREFIX}/secrets/<path:name>": _ADMIN,
    f"DELETE {PREFIX}/secrets/<path:name>": _ADMIN,
    f"GET {PREFIX}/projects/<project_id>/schedules": _READ,
    f"POST {PREFIX}/projects/<project_id>/schedules": _CHANGE,
    f"GET {PREFIX}/projects/<project_id>/schedules/<schedule_id>": _READ,
    f"PATCH {PREFIX}/projects/<project_id>/schedules/<schedule_id>": _CHANGE,
    f"DELETE {PREFIX}/projects/<project_id>/schedules/<schedule_id>": _CHANGE,
    f"POST {PREFIX}/projects/<project_id>/schedules/<schedule_id>/run": _CHANGE,
    f"GET {PREFIX}/users/me": _READ,
    f"POST {PREFIX}/tokens": _CHANGE,
    f"GET {PREFIX}/tokens": _CHANGE,
    f"DELETE {PREFIX}/tokens/<token_id>": _CHANGE,
    f"GET {PREFIX}/users": _ADMIN,
    f"POST {PREFIX}/users": _ADMIN,
    f"PATCH {PREFIX}/users/<string(length=36):user_id>": _ADMIN,
    f"DELETE {PREFIX}/users/<string(length=36):user_id>": _ADMIN,
    f"POST {PREFIX}/invitations": _ADMIN,
    f"GET {PREFIX}/audit": _ADMIN,
    f"GET {PREFIX}/retention": _ADMIN,
    f"POST {PREFIX}/links": _READ,
    "GET /static/<version>/<name>": _NO_TOKEN,
    "GET /sign-in": _NO_TOKEN,
    "POST /sign-in": _NO_TOKEN,
    "POST /sign-out": _NO_TOKEN,
    "GET /": _READ,
    "GET /runs": _READ,
    "GET /runs/<run_id>": _READ,
    "GET /jobs": _READ,
    "GET /jobs/<job_id>": _READ,
    "GET /jobs/<job_id>/artifacts/<path:path>": _READ,
    "GET /queues": _READ,
    "GET /workers": _READ,
    "GET /projects": _READ,
    "GET /projects/<project_id>": _READ,
    "GET /account": _READ,
    "GET /admin": _ADMIN,
}


_PUBLIC_OF_JOB = (
    *("", "/logs", "/logs/search", "/attempts", "/why", "/tests", "/summary"),
    *("/artifacts", "/artifacts/<path:path>", "/artifacts.tar.gz"),
)
PUBLIC = frozenset(
    {
        f"GET {PREFIX}/jobs",
        *(f"GET {PREFIX}/jobs/<job_id>{part}" for part in _PUBLIC_OF_JOB),
        f"GET {PREFIX}/runs",
        f"GET {PREFIX}/runs/<run_id>",
        f"GET {PREFIX}/runs/<run_id>/file",
        f"GET {PREFIX}/projects/<project_id>",
        f"GET {PREFIX}/projects/<project_id>/badge.svg",
        f"GET {PREFIX}/events",
        "GET /runs/<run_id>",
        "GET /jobs/<job_id>",
        "GET /jobs/<job_id>/artifacts/<path:path>",
        "GET /projects/<project_id>",
    }
)
"""The routes that need no token for items of a public project."""


def install(app: Flask) -> None:
    """Refuse a request whose token is missing, invalid, or lacks the route's scopes."""
    app.before_request(_check_token)


def _check_token() -> None:
    if request.url_rule is None:
        # A 404 needs no token.
        return
    if request.method == "OPTIONS":
        authenticate()
        return
    method = "GET" if request.method == "HEAD" else request.method
    route = f"{method} {request.url_rule.rule}"
    needed = NEEDS[route]
    if route in PUBLIC and "Authorization" not in request.headers and session_value() is None:
        g.user = Anonymous.at(request.remote_addr, g.request_id)
    elif needed == OF_WORKERS:
        _authenticate_worker()
    elif needed is not _NO_TOKEN:
        tokens.check_scopes(authenticate(), needed)


def authenticate() -> Caller:
    """Return the caller, by a token or else by a session of the web page; read once per request.

    Raises ``Unauthorized``, or ``TooManyFailures`` after too many of these; and ``Forbidden`` for a request
    that changes something by a session and lacks its CSRF token.
    """
    if "user" in g:
        return caller()
    session = session_value()
    find = _finder(session)
    try:
        user = find()
    except Unauthorized:
        services().bad_tokens.failed(request.remote_addr)
        raise
    if session is not None:
        _check_csrf_token(session)
    g.user = user
    return user


def _authenticate_worker() -> None:
    value = bearer_token()
    try:
        g.worker = registry.authenticate(services().jobs, value)
    except Unauthorized:
        services().bad_tokens.failed(request.remote_addr)
        raise


def worker() -> RemoteWorker:
    """Return the worker that sends a request, on the routes for workers."""
    found: RemoteWorker = g.worker
    return found


def authenticator() -> Callable[[], Caller]:
    """Return a function that authenticates the caller of this request anew, at any later time.

    It also raises ``Unauthorized`` if the user's role has changed.
    """
    first = caller()
    if first.is_anonymous:
        return lambda: first
    find = _finder(session_value())

    def again() -> Caller:
        current = find()
        if current.role != first.role:
            raise Unauthorized("your role has changed; send the request again")
        return current

    return again


def _finder(session: str | None) -> Callable[[], Caller]:
    """Return a function that looks up the caller of this request, also outside of the request."""
    find = tokens.authenticate if session is None else sessions.authenticate
    value = bearer_token() if session is None else session
    accounts, address, request_id = services().accounts, request.remote_addr, g.request_id
    return lambda: find(accounts, value, address=address, request_id=request_id)


def session_value() -> str | None:
    """Return the session that authenticates this request; ``None`` if a token does, or there is none."""
    if "Authorization" in request.headers:
        return None
    return request.cookies.get(SESSION_COOKIE)


def _check_csrf_token(session: str) -> None:
    """Raise ``Forbidden`` if another site may have made the browser send this request."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    sent = request.headers.get(CSRF_HEADER) or request.form.get("csrf_token", "")
    if not compare_digest(sent.encode(), sessions.csrf_token(session).encode()):
        raise Forbidden(f"the CSRF token is missing or of another session ({CSRF_HEADER}); reload the page")


def bearer_token() -> str:
    """Return the request's token; raises ``Unauthorized`` if it has none."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise Unauthorized("send a token: Authorization: Bearer <token>")
    return value.strip()


def caller() -> Caller:
    """Return the caller, on routes that need a token."""
    user: Caller = g.user
    return user
