"""Signing in and out: by a token, an invitation or a one-time link."""

from posixpath import normpath
from urllib.parse import unquote, urlsplit

from flask import Response, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from reactorcide.accounts import invitations, sessions, tokens
from reactorcide.domain.accounts import Caller
from reactorcide.domain.errors import Conflict, Forbidden, InvalidInput, Unauthorized
from reactorcide.lib.networks import is_loopback
from reactorcide.web import hosts
from reactorcide.web.address import own_url
from reactorcide.web.auth import SESSION_COOKIE, authenticate, session_value
from reactorcide.web.services import services

_MAX_FIELD_CHARS = 1000


def sign_in_page(problem: str | None = None) -> str:
    """Return the page with the ways to sign in, which lead back to the page that was asked for."""
    return render_template(
        "sign_in.html",
        problem=problem,
        link=request.args.get("link", "")[:_MAX_FIELD_CHARS],
        invitation=request.values.get("invitation", "")[:_MAX_FIELD_CHARS],
        username=request.form.get("username", "")[:_MAX_FIELD_CHARS],
        next=_next(),
        is_safe=_is_secure() or is_loopback(hosts.name_of(request.host)),
    )


def sign_in() -> AnyResponse:
    """Open a session by what the form brings, and go to the page that was asked for."""
    _check_origin()
    try:
        value = _open()
    except (InvalidInput, Conflict) as exc:
        return Response(sign_in_page(str(exc)), 400)
    except (Unauthorized, Forbidden) as exc:
        services().bad_tokens.failed(request.remote_addr)
        return Response(sign_in_page(str(exc)), 403)
    response = redirect(_next(), 303)
    response.set_cookie(
        SESSION_COOKIE,
        value,
        max_age=sessions.SESSION_MS // 1000,
        path=request.script_root or "/",
        secure=_is_secure() or not is_loopback(hosts.name_of(request.host)),
        httponly=True,
        samesite="Lax",
    )
    return response


def sign_out() -> AnyResponse:
    """End the session of this browser, if there is one."""
    response = redirect(url_for("ui.show_sign_in"), 303)
    value = session_value()
    if value is not None:
        try:
            caller = authenticate()
        except Unauthorized:
            pass
        else:
            sessions.close_session(services().accounts, caller, value)
    response.delete_cookie(SESSION_COOKIE, path=request.script_root or "/")
    return response


def _open() -> str:
    """Return the value of a new session; raises the errors of what the form brings."""
    accounts = services().accounts
    source = {"address": request.remote_addr, "request_id": g.request_id}
    form = request.form
    if link := form.get("link", "").strip():
        return sessions.redeem_link(accounts, link, **source)
    if invitation := form.get("invitation", "").strip():
        user, token, _ = invitations.register(
            accounts,
            invitation,
            form.get("username", "").strip(),
            form.get("email", "").strip() or None,
            **source,
        )
        fields = {name: getattr(user, name) for name in user.__dataclass_fields__}
        return sessions.open_session(accounts, Caller(**fields, token=token, **source))
    if value := form.get("token", "").strip():
        return sessions.open_session(accounts, tokens.authenticate(accounts, value, **source))
    raise InvalidInput("give a token, an invitation or a link", "token")


def _next() -> str:
    """Return the page to go to: one of this service, whatever the form says."""
    target = request.values.get("next", "")
    if request.endpoint not in ("ui.show_sign_in", "ui.sign_in") and request.method == "GET":
        target = request.script_root + request.full_path.removesuffix("?")
    # Browsers and proxies resolve dot segments, also those that are encoded.
    path = normpath(unquote(target.partition("?")[0].partition("#")[0]))
    is_own = all(text.startswith(f"{request.script_root}/") for text in (target, f"{path}/"))
    is_own = is_own and not target.startswith("//") and "\\" not in target
    return target if is_own and target.isprintable() else url_for("ui.home")


def _is_secure() -> bool:
    return request.is_secure or own_url().startswith("https:")


def _check_origin() -> None:
    """Raise ``Forbidden`` if a page of another site sends the form, to sign its visitor in as another."""
    origin = request.headers.get("Origin")
    if origin is None:
        return
    sent = urlsplit(origin).netloc
    if sent not in (request.host, urlsplit(own_url()).netloc):
        raise Forbidden("this form was sent by a page of another site; sign in from here")
