"""The REST API and the web page, on Flask."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.routing import PathConverter, Rule

from reactorcide import __version__
from reactorcide.web import auth, cors, errors, expect, hosts, requests, shortids, ui
from reactorcide.web.address import PUBLIC_URL, PathPrefix, TrustedProxies
from reactorcide.web.api import openapi
from reactorcide.web.api.accounts import routes as accounts
from reactorcide.web.api.artifacts import routes as artifacts
from reactorcide.web.api.caches import routes as caches
from reactorcide.web.api.deliveries import routes as deliveries
from reactorcide.web.api.document import routes as document
from reactorcide.web.api.jobs import routes as jobs
from reactorcide.web.api.logs import routes as logs
from reactorcide.web.api.projects import routes as projects
from reactorcide.web.api.queues import routes as queues
from reactorcide.web.api.runs import routes as runs
from reactorcide.web.api.schedules import routes as schedules
from reactorcide.web.api.schemas import ErrorResponse
from reactorcide.web.api.secrets import routes as secrets
from reactorcide.web.api.service import routes as service
from reactorcide.web.api.sources import routes as sources
from reactorcide.web.api.webhooks import routes as webhooks
from reactorcide.web.api.worker import files as worker_files
from reactorcide.web.api.worker import routes as worker
from reactorcide.web.api.workers import routes as workers
from reactorcide.web.services import Services, install_services

_RESOURCES = (
    *(
        document,
        service,
        workers,
        worker,
        worker_files,
        jobs,
        projects,
        secrets,
        schedules,
        runs,
        caches,
        artifacts,
        queues,
        sources,
        logs,
    ),
    accounts,
    deliveries,
    webhooks,
)


class _AnyPath(PathConverter):
    """A path with any characters: the library's own stops at a line end, which a file name may have."""

    regex = r"(?s:[^/].*?)"
    part_isolating = False


class _Rule(Rule):
    """A rule whose function that makes addresses is compiled with the first one: most are never asked for."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = cache(partial(super()._compile_builder, append_unknown))
        return lambda rule, /, **values: compiled()(rule, **values)


class _App(OpenAPI):
    url_rule_class = _Rule

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func``: none is a coroutine, and Flask would check eight of them at each request."""
        return func


def create_app(
    services: Services,
    *,
    trusted_proxies: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    public_url: str | None = None,
    has_ui: bool = True,
) -> Flask:
    """Return the WSGI application; starts nothing.

    ``trusted_proxies`` are networks of proxies whose X-Forwarded fields are trusted; pages of
    ``cors_origins`` may use the API from a browser. Without a token the Host must be an address, the
    machine's name, the host of ``public_url`` or one of ``allowed_hosts``. Without ``has_ui`` there is no web
    page. Raises ``ConfigurationError`` for an invalid ``public_url``.
    """
    app = _App(
        "reactorcide",
        info=Info(title="Reactorcide", version=__version__),
        security_schemes=openapi.SECURITY_SCHEMES,
        validation_error_status=400,
        validation_error_model=ErrorResponse,
        validation_error_callback=errors.validation_failed,
        doc_ui=False,
        static_folder=None,
    )
    # A path of an artifact with an empty part is a 404, not a redirect.
    app.url_map.merge_slashes = False
    app.url_map.converters["path"] = _AnyPath
    install_services(app, services)
    requests.install(app, services.metrics)
    errors.install(app)
    hosts.install(app, hosts.own_names(public_url, allowed_hosts))
    cors.install(app, cors_origins)
    auth.install(app)
    shortids.install(app)
    expect.install(app)
    for routes in _RESOURCES:
        app.register_api(routes.api)
    openapi.install(app)
    if has_ui:
        ui.install(app)
    if public_url is not None:
        app.config[PUBLIC_URL] = public_url
        if prefix := urlsplit(public_url).path.rstrip("/"):
            app.wsgi_app = PathPrefix(app.wsgi_app, prefix)  # type: ignore[method-assign]  # as Flask says
    app.wsgi_app = TrustedProxies(app.wsgi_app, trusted_proxies)  # type: ignore[method-assign]  # as Flask says
    return app
