"""How a page gets its data: from the functions of the API's routes, with their checks and their answers."""

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Flask, Response, current_app

from reactorcide.accounts import tokens
from reactorcide.domain.errors import Unauthorized
from reactorcide.web.api.schemas import NoQuery
from reactorcide.web.auth import NEEDS, PUBLIC, caller

NOTHING = NoQuery()

_Answer = Response | tuple[Response, int]


def ask(route: Callable[..., _Answer], **arguments: Any) -> Any:
    """Return the JSON that a GET route of the API answers to this request's caller.

    Raises the route's errors, ``Forbidden`` if the caller's token lacks a scope that it needs, and
    ``Unauthorized`` if nobody is signed in and the route is not for anybody.
    """
    return ask_response(route, **arguments).get_json()


def ask_text(route: Callable[..., _Answer], **arguments: Any) -> str:
    """Return the text that a GET route of the API answers, as ``ask`` does."""
    return ask_response(route, **arguments).get_data().decode(errors="replace")


def may_ask(route: Callable[..., _Answer]) -> bool:
    """Return whether the caller's token has the scopes that a route of the API needs."""
    return (NEEDS[_rule(route)] or frozenset()) <= caller().scopes


def ask_response(route: Callable[..., _Answer], **arguments: Any) -> Response:
    """Return what a GET route of the API answers, as ``ask`` does, before any of it is read."""
    rule = _rule(route)
    if caller().is_anonymous and rule not in PUBLIC and NEEDS[rule] is not None:
        raise Unauthorized("sign in to see this")
    tokens.check_scopes(caller(), NEEDS[rule] or ())
    answer = route(**{"query": NOTHING} | arguments)
    return answer[0] if isinstance(answer, tuple) else answer


def _rule(route: Callable[..., _Answer]) -> str:
    resource = route.__module__.split(".")[-2]
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # the real one, as a key
    return f"GET {_rules(app)[f'{resource}.{route.__name__}']}"


@cache
def _rules(app: Flask) -> dict[str, str]:
    """Return the address of each endpoint that answers a GET."""
    return {rule.endpoint: rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
