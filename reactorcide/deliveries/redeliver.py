"""Have a delivery processed again."""

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.deliveries import ARRIVED, Delivery
from reactorcide.domain.projects import ProjectRole
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms


def redeliver(context: StoredJobs, user: User, project_id: str, delivery_id: str) -> Delivery:
    """Process a delivery again, even if it has started runs, and return it; for owners.

    A waiting delivery is processed anyway.
    """
    project_id = access.project(context, user, project_id, ProjectRole.OWNER).project_id
    at_ms = now_ms()
    with context.store.transaction() as tx:
        tx.deliveries.get(project_id, delivery_id)
        tx.deliveries.repeat(delivery_id, now_ms=at_ms)
        subject = f"{project_id} {delivery_id}"
        tx.audit.add(
            AuditEntry(at_ms=at_ms, by=user.actor, action=Action.DELIVERY_REDELIVER, subject=subject)
        )
        delivery = tx.deliveries.get(project_id, delivery_id)
    context.notifier.announce(ARRIVED)
    return delivery
