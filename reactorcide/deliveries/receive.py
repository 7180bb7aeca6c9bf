"""Receive a delivery: check its sender, store it, and then have it processed."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from reactorcide import crashpoints
from reactorcide.domain.deliveries import (
    ARRIVED,
    MAX_BODY_BYTES,
    OBJECTS,
    Delivery,
    DeliveryStatus,
    Outcome,
    object_prefix,
)
from reactorcide.domain.errors import InvalidInput, NotFound, TooLarge
from reactorcide.domain.forges import ForgeKind, Ignored
from reactorcide.domain.projects import CredentialKind, Project, PullRequests
from reactorcide.domain.secrets import REDACTED
from reactorcide.forges import FORGES
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.sizes import format_size

_MAX_HELD_BYTES = 256 << 10
"""A body of up to this size is checked before anything is stored."""
_MAX_EVENT_CHARS = 100
_SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization", "x-gitlab-token"}
PING = "ping"
"""The event with which a forge tests the webhook."""
_SECRETS = (CredentialKind.WEBHOOK_SECRET, CredentialKind.PREVIOUS_WEBHOOK_SECRET)


def expecting(context: StoredJobs, project_id: str) -> Project:
    """Return the project with an id, if it accepts deliveries; raises ``NotFound``."""
    project = context.store.projects.find(project_id)
    if project is None or project.forge is ForgeKind.NONE:
        raise NotFound("there is no such project, or it has no forge and accepts no deliveries")
    return project


def receive(
    context: StoredJobs, project: Project, headers: Mapping[str, str], chunks: Iterable[bytes]
) -> Delivery:
    """Store a delivery and return it; when this returns it is on disk, and will be processed.

    ``headers`` are by name in lower case, ``chunks`` the raw bytes of the body. A repeated delivery returns
    the stored one, which is processed again only if it has started no run. Raises ``Unauthorized`` unless the
    project's secret has signed it, ``TooLarge``, and ``InvalidInput`` if it has no id.
    """
    forge = FORGES[project.forge]
    at_ms = now_ms()
    arrived = Delivery(
        delivery_id=new_id(),
        project_id=project.project_id,
        forge_delivery_id=forge.delivery_id(headers),
        event=forge.event_name(headers)[:_MAX_EVENT_CHARS],
        headers={name: _without_secret(name, value) for name, value in headers.items()},
        size_bytes=0,
        created_at_ms=at_ms,
        due_at_ms=at_ms,
    )
    is_new = False
    try:
        arrived = _stored(context, project, arrived, headers, chunks)
        crashpoints.reached("delivery-body-stored")
        delivery, is_new = context.store.write(lambda tx: tx.deliveries.add(arrived))
    finally:
        if not is_new:
            context.objects.delete(arrived.prefix)
    crashpoints.reached("delivery-stored")
    context.notifier.announce(ARRIVED)
    return delivery


def remove_orphans(context: StoredJobs, *, before_id: str | None = None) -> None:
    """Remove the bodies of deliveries that have no row; call it before any delivery is received.

    With ``before_id``, which is of a time when none that is being received had begun, it may be called at any
    time.
    """
    with_row = context.store.deliveries.ids()
    for item in list(context.objects.list(OBJECTS)):
        delivery_id = item.key.removeprefix(OBJECTS).partition("/")[0]
        is_old = before_id is None or delivery_id < before_id
        if is_old and delivery_id not in with_row:
            context.objects.delete(object_prefix(delivery_id))


def _stored(
    context: StoredJobs,
    project: Project,
    delivery: Delivery,
    headers: Mapping[str, str],
    chunks: Iterable[bytes],
) -> Delivery:
    """Check the sender of a delivery, store its body, and return the delivery."""
    forge = FORGES[project.forge]
    credentials = (context.store.projects.credential(project.project_id, kind) for kind in _SECRETS)
    secrets = [secret for secret in credentials if secret is not None]

    def verify(body: Iterable[bytes]) -> None:
        forge.verify(headers, body, secrets, now_s=time.time())

    rest = iter(_bounded(chunks))
    held: list[bytes] = []
    held_bytes = 0
    while held_bytes <= _MAX_HELD_BYTES:
        chunk = next(rest, None)
        if chunk is None:
            # A short body is checked first, so that nothing is stored for a stranger.
            verify(held)
            size_bytes = context.objects.put(delivery.object_key, held)
            return _of_ping(project, replace(delivery, size_bytes=size_bytes), headers, b"".join(held))
        held.append(chunk)
        held_bytes += len(chunk)
    size_bytes = context.objects.put(delivery.object_key, chain(held, rest))
    verify(context.objects.read(delivery.object_key))
    return replace(delivery, size_bytes=size_bytes)


def _of_ping(project: Project, delivery: Delivery, headers: Mapping[str, str], body: bytes) -> Delivery:
    """Return a ping with its answer as the outcome, and any other delivery unchanged."""
    if delivery.event != PING:
        return delivery
    try:
        read = FORGES[project.forge].read(headers, body)
    except InvalidInput as exc:
        outcome = Outcome(status=DeliveryStatus.FAILED, sentence=f"failed: {exc}")
    else:
        answer = read.reason if isinstance(read, Ignored) else "it arrives"
        outcome = Outcome(status=DeliveryStatus.IGNORED, sentence=f"ping: {answer}; {_would_do(project)}")
    return replace(delivery, status=outcome.status, outcome=outcome.sentence, due_at_ms=None)


def _would_do(project: Project) -> str:
    """Return a phrase that says what deliveries of a project start."""
    if project.disabled:
        return "the project is disabled, so that they start nothing"
    events = "all events" if project.allowed_events is None else ", ".join(project.allowed_events)
    pulls = {
        PullRequests.OFF: "no pull request",
        PullRequests.TRUSTED: "pull requests of forks once they are approved",
        PullRequests.ALL: "pull requests of forks, too",
    }[project.pull_requests]
    return f"{events} start the workflows of {project.name} that name them; {pulls}"


def _bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    size_bytes = 0
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > MAX_BODY_BYTES:
            raise TooLarge(f"the delivery is larger than {format_size(MAX_BODY_BYTES)}")
        yield chunk


def _without_secret(name: str, value: str) -> str:
    return REDACTED if name in _SECRET_HEADERS or "signature" in name else value
