"""Routes on the service itself; most of them need no token."""

from typing import Any

from flask import Response, jsonify, request

from reactorcide import __version__
from reactorcide.domain.errors import TooManyFailures, Unauthorized
from reactorcide.metrics import CONTENT_TYPE
from reactorcide.web.api import PREFIX
from reactorcide.web.api.media import METRICS
from reactorcide.web.api.resource import NO_TOKEN, TOKEN_IF_ANY, resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.api.service.schemas import HealthResponse, ReadyResponse, RetentionResponse
from reactorcide.web.auth import authenticate
from reactorcide.web.services import services

_METRICS: dict[Any, Any] = {200: {"content": {"text/plain": METRICS}}, 503: ErrorResponse}

api = resource("service", __name__, tag="service", prefix=None)


@api.get(f"{PREFIX}/health", responses={200: HealthResponse}, security=TOKEN_IF_ANY)
def health(query: NoQuery) -> Response:
    """Show that the service answers, and whether the token is valid, if one was sent."""
    user_id = None
    if "Authorization" in request.headers:
        try:
            user_id = authenticate().user_id
        except (Unauthorized, TooManyFailures):
            user_id = None
    is_signed_in = user_id is not None
    return jsonify(
        {
            "status": "OK",
            "version": __version__,
            "verification": {
                "verified": is_signed_in,
                "user_authenticated": is_signed_in,
                "user_id": user_id,
            },
        }
    )


api.get("/api/health", responses={200: HealthResponse}, operation_id="health_short", security=TOKEN_IF_ANY)(
    health
)


@api.get(f"{PREFIX}/ready", responses={200: ReadyResponse, 503: ReadyResponse}, security=NO_TOKEN)
def ready(query: NoQuery) -> tuple[Response, int]:
    """Show whether each part works by its last check, and how many seconds ago that was."""
    findings = services().probes.results()
    checks = {name: finding.text for name, finding in findings.items()}
    ages = {name: finding.age_s for name, finding in findings.items()}
    is_ready = all(text == "ok" for text in checks.values())
    return jsonify({"checks": checks, "ages_s": ages}), 200 if is_ready else 503


@api.get(f"{PREFIX}/retention", responses={200: RetentionResponse})
def show_retention(query: NoQuery) -> Response:
    """Show how long jobs, images, sources and caches are kept; for admins."""
    return jsonify(dict(services().retention))


@api.get(f"{PREFIX}/metrics", responses=_METRICS, security=NO_TOKEN)
def metrics(query: NoQuery) -> Response:
    """Return all metrics in Prometheus' text format."""
    return Response(services().metrics.render(), content_type=CONTENT_TYPE)


api.get("/metrics", responses=_METRICS, operation_id="metrics_short", security=NO_TOKEN)(metrics)
