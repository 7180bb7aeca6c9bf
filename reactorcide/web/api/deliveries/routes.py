"""Routes on deliveries: the webhook of a project, and its received deliveries."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, BinaryIO, cast

from flask import Response, jsonify, request

from reactorcide.deliveries import read, receive, redeliver
from reactorcide.domain.deliveries import MAX_BODY_BYTES, Delivery, DeliveryStatus
from reactorcide.domain.errors import NotFound, TooLarge, Unauthorized
from reactorcide.lib.clock import rfc3339
from reactorcide.lib.sizes import format_size
from reactorcide.web.address import client_address
from reactorcide.web.api import lists
from reactorcide.web.api.deliveries.schemas import (
    DeliveryListQuery,
    DeliveryListResponse,
    DeliveryPath,
    DeliveryResponse,
    HookHeader,
    HookPath,
    HookResponse,
)
from reactorcide.web.api.media import DELIVERY
from reactorcide.web.api.projects.schemas import ProjectPath
from reactorcide.web.api.resource import NO_TOKEN, resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.expect import MAX_HOOK_BODY_BYTES
from reactorcide.web.services import services

_CHUNK_BYTES = 1 << 16
_NO_SLOT = "too many large deliveries are received at the moment; send it again in a few seconds"

api = resource("deliveries", __name__, tag="deliveries")


@api.post(
    "/hooks/<project_id>",
    responses={202: HookResponse, 401: ErrorResponse, 429: ErrorResponse},
    security=NO_TOKEN,
    openapi_extensions={
        "requestBody": {
            "description": "What the forge of the project sends, signed with the project's webhook secret.",
            "required": True,
            "content": {"application/json": DELIVERY, "application/x-www-form-urlencoded": DELIVERY},
        }
    },
)
def take_delivery(path: HookPath, header: HookHeader) -> Response:
    """Receive a delivery of a project's forge: it is stored, answered, and then processed."""
    try:
        project = receive.expecting(services().jobs, path.project_id)
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise TooLarge(f"the delivery is larger than {format_size(MAX_BODY_BYTES)}")
        # A slow and large one must not take every thread of the service, or every slot of its users.
        is_held = (request.content_length or MAX_BODY_BYTES) <= MAX_HOOK_BODY_BYTES
        slots = services().delivery_slots
        with nullcontext() if is_held else slots.required((client_address(),), _NO_SLOT):
            headers = {name.lower(): value for name, value in request.headers.items()}
            delivery = receive.receive(services().jobs, project, headers, _chunks())
    except (NotFound, Unauthorized):
        services().bad_tokens.failed(request.remote_addr)
        raise
    response = jsonify(
        {"delivery_id": delivery.delivery_id, "status": delivery.status, "outcome": delivery.outcome}
    )
    response.status_code = 202
    return response


@api.get("/projects/<project_id>/deliveries", responses={200: DeliveryListResponse})
def list_deliveries(path: ProjectPath, query: DeliveryListQuery) -> Response:
    """List the deliveries of a project of the last 30 days, newest first; for its owners."""
    items, total = read.page(
        services().jobs,
        caller(),
        path.project_id,
        status=None if query.status is None else DeliveryStatus(query.status),
        limit=query.limit + 1,
        after=lists.from_cursor(query.cursor),
    )
    return lists.page(
        "deliveries",
        items,
        query.limit,
        lambda delivery: (delivery.created_at_ms, delivery.delivery_id),
        _json,
        total=total,
        limit=query.limit,
    )


@api.get("/projects/<project_id>/deliveries/<delivery_id>", responses={200: DeliveryResponse})
def show_delivery(path: DeliveryPath, query: NoQuery) -> Response:
    """Show a delivery of a project with its headers and its body; for its owners."""
    return _details(path.project_id, path.delivery_id)


@api.post("/projects/<project_id>/deliveries/<delivery_id>/redeliver", responses={202: DeliveryResponse})
def redeliver_delivery(path: DeliveryPath, query: NoQuery) -> Response:
    """Process a delivery again, also one that has started runs; for owners of the project."""
    redeliver.redeliver(services().jobs, caller(), path.project_id, path.delivery_id)
    response = _details(path.project_id, path.delivery_id)
    response.status_code = 202
    return response


def _details(project_id: str, delivery_id: str) -> Response:
    view = read.view(services().jobs, caller(), project_id, delivery_id)
    content = {"headers": view.delivery.headers, "body": view.body, "body_is_cut": view.is_cut}
    return jsonify(_json(view.delivery) | content)


def _json(delivery: Delivery) -> dict[str, Any]:
    return {
        "delivery_id": delivery.delivery_id,
        "forge_delivery_id": delivery.forge_delivery_id,
        "event": delivery.event,
        "size": delivery.size_bytes,
        "status": delivery.status,
        "outcome": delivery.outcome,
        "run_ids": delivery.run_ids,
        "created_at": rfc3339(delivery.created_at_ms),
    }


def _chunks() -> Iterator[bytes]:
    # It has a limit of its own, checked while it is read.
    request.max_content_length = None
    stream = cast(BinaryIO, request.stream)
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk
