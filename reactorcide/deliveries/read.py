"""Reading deliveries: lists, and one with its headers and body."""

from reactorcide.domain.accounts import User
from reactorcide.domain.deliveries import Delivery, DeliveryStatus
from reactorcide.domain.errors import ObjectNotFound
from reactorcide.domain.projects import CredentialKind, ProjectRole
from reactorcide.domain.secrets import REDACTED
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.records import record

MAX_RETURNED_BYTES = 1 << 20
"""Maximum bytes of a body that are returned."""


@record
class DeliveryView:
    """A delivery with its headers and body."""

    delivery: Delivery
    body: str
    is_cut: bool
    """Whether the body is longer."""


def page(
    context: StoredJobs,
    user: User,
    project_id: str,
    *,
    status: DeliveryStatus | None,
    limit: int,
    after: tuple[int, str] | None,
) -> tuple[list[Delivery], int]:
    """Return a page of a project's deliveries, newest first, and the total; for its owners."""
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    return context.store.deliveries.page(project_id, status=status, limit=limit, after=after)


def view(context: StoredJobs, user: User, project_id: str, delivery_id: str) -> DeliveryView:
    """Return a delivery of a project, without the project's credentials; for its owners."""
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    delivery = context.store.deliveries.get(project_id, delivery_id)
    try:
        body = b"".join(context.objects.read(delivery.object_key, 0, MAX_RETURNED_BYTES))
    except ObjectNotFound:
        body = b""
    for kind in CredentialKind:
        # Older versions of Gitea put the secret into the body.
        secret = context.store.projects.credential(project_id, kind)
        if secret:
            body = body.replace(secret.encode(), REDACTED.encode())
    return DeliveryView(delivery, body.decode(errors="replace"), delivery.size_bytes > MAX_RETURNED_BYTES)
