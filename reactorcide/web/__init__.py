"""The REST API, on Flask."""

from collections.abc import Sequence

from flask import Flask
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.routing import PathConverter

from reactorcide import __version__
from reactorcide.web import auth, cors, door, errors, hosts, requests
from reactorcide.web.address import TrustedProxies
from reactorcide.web.api import accounts, document, jobs, logs, service, sources
from reactorcide.web.api.models import ErrorResponse
from reactorcide.web.services import Services


class _AnyPath(PathConverter):
    """A path with any characters: the library's own ends at a line end, which the name of a file may have."""

    regex = r"(?s:[^/].*?)"
    part_isolating = False


def create_app(
    services: Services,
    *,
    trusted_proxies: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    public_url: str | None = None,
) -> Flask:
    """Return the WSGI application; starts nothing.

    ``trusted_proxies`` are networks of proxies whose word on a client's address is taken; pages of
    ``cors_origins`` may use the API from a browser. Without a token the service is called by an address,
    its own name, that in ``public_url`` or one of ``allowed_hosts``. Raises ``ConfigurationError`` where
    ``public_url`` is none.
    """
    app = OpenAPI(
        "reactorcide",
        info=Info(title="Reactorcide", version=__version__),
        security_schemes=document.SECURITY_SCHEMES,
        validation_error_status=400,
        validation_error_model=ErrorResponse,
        validation_error_callback=errors.validation_failed,
        doc_ui=False,
        static_folder=None,
    )
    # The path of an artifact may contain what looks like an empty part; it is a 404, not another address.
    app.url_map.merge_slashes = False
    app.url_map.converters["path"] = _AnyPath
    requests.install(app, services.metrics)
    errors.install(app)
    hosts.install(app, services, hosts.own_names(public_url, allowed_hosts))
    cors.install(app, cors_origins)
    auth.install(app, services)
    door.install(app)
    app.register_api(document.blueprint())
    app.register_api(service.blueprint(services))
    app.register_api(jobs.blueprint(services))
    app.register_api(sources.blueprint(services))
    app.register_api(logs.blueprint(services))
    app.register_api(accounts.blueprint(services))
    app.wsgi_app = TrustedProxies(app.wsgi_app, trusted_proxies)  # type: ignore[method-assign]  # as Flask says
    return app
