"""Remove old deliveries."""

from reactorcide.domain.deliveries import object_prefix
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms

KEEP_DAYS = 30
_DAY_MS = 86_400_000


def remove_old(context: StoredJobs) -> None:
    """Remove deliveries older than 30 days, with their bodies."""
    for delivery_id in context.store.deliveries.remove_old(before_ms=now_ms() - KEEP_DAYS * _DAY_MS):
        # The row first: after an interruption the body is an orphan, which the janitor removes.
        context.objects.delete(object_prefix(delivery_id))
