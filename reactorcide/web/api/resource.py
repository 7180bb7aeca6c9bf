"""A blueprint for each resource, and how a route declares its need of a token."""

from collections.abc import Callable
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.types import ParametersTuple
from flask_openapi3.utils import parse_parameters

from reactorcide.web.api import PREFIX

Security = list[dict[str, list[Any]]]

NO_TOKEN: Security = [{}]
"""The ``security`` of a route that needs no token."""
TOKEN_IF_ANY: Security = [{}, {"token": []}]
"""The ``security`` of a route with an optional token."""


class Resource(APIBlueprint):
    """The routes of a resource, described for the document only when it is requested.

    The library does it with each route: that took a fifth of the processor time of a start.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._undescribed: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []

    def _collect_openapi_info(self, rule: str, func: Callable[..., Any], **options: Any) -> ParametersTuple:
        self._undescribed.append((rule, func, options))
        return parse_parameters(func, doc_ui=False)

    def describe(self, app: OpenAPI) -> None:
        """Add the routes and their models to the document of ``app``. Not thread-safe."""
        while self._undescribed:
            rule, func, options = self._undescribed.pop(0)
            super()._collect_openapi_info(rule, func, **options)
        app.tags += [tag for tag in self.tags if tag not in app.tags]
        app.paths |= self.paths
        app.components_schemas |= self.components_schemas


def resource(
    name: str, module: str, *, tag: str, prefix: str | None = PREFIX, security: Security | None = None
) -> Resource:
    """Return the blueprint for the routes in ``module``. Operations are named after their functions."""
    return Resource(
        name,
        module,
        url_prefix=prefix,
        abp_tags=[Tag(name=tag)],
        abp_security=security,
        operation_id_callback=_operation_name,
    )


def _operation_name(*, name: str, **_: str) -> str:
    return name
