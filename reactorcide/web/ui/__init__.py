"""The web page: Jinja templates over the API's own answers, and plain ES modules."""

from contextlib import suppress

from flask import Flask, Response, g, render_template, request
from werkzeug.exceptions import NotFound

from reactorcide.domain.errors import ReactorcideError
from reactorcide.web.api import PREFIX
from reactorcide.web.auth import authenticate, session_value
from reactorcide.web.ui import shown
from reactorcide.web.ui.assets import Assets
from reactorcide.web.ui.pages import ui
from reactorcide.web.ui.signing import sign_in_page

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def install(app: Flask) -> None:
    """Add the pages to an application that has the API's routes."""
    assets = Assets()

    app.register_blueprint(ui)
    app.add_url_rule("/static/<version>/<name>", "ui.static", assets.answer)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.finalize = shown.finalize
    app.jinja_env.filters.update(shown.FILTERS)
    app.jinja_env.globals.update(asset=assets.url, **shown.GLOBALS)
    app.after_request(_finish)


def _finish(response: Response) -> Response:
    """Show errors to people as pages, and say what a page may load."""
    if response.status_code >= 400 and response.is_json and _is_for_people():
        body = response.get_json()
        if "user" not in g and session_value() is not None:
            # No route has asked who it is; the page has the same top for an address that does not exist.
            with suppress(ReactorcideError):
                authenticate()
        if response.status_code == 401:
            page = sign_in_page(str(body["message"]) if request.cookies else None)
        else:
            page = render_template("error.html", status=response.status_code, message=body["message"])
        response.set_data(page)
        response.mimetype = "text/html"
    if response.mimetype == "text/html" and not request.path.startswith("/api/"):
        response.headers["Content-Security-Policy"] = _POLICY
        # Not "no-referrer": with that a browser sends no Origin with a form.
        response.headers["Referrer-Policy"] = "same-origin"
    return response


def _is_for_people() -> bool:
    if request.path.startswith((f"{PREFIX}/", "/api/", "/metrics")):
        return False
    if request.blueprint == ui.name:
        return True
    return (
        isinstance(request.routing_exception, NotFound)
        and request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    )
