"""Renew the key that encrypts what is secret in the database."""

from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms


def rekey(context: StoredJobs, *, by: Actor) -> int:
    """Encrypt all that is secret with a new key, and return how many values that are.

    No service may work on the database. It can be killed at any point: then all is encrypted with one key,
    the old or the new one, and the next start uses that one. Raises ``StoreError``, and
    ``ConfigurationError`` if the key cannot be read or written.
    """
    instance = context.store.instance
    entry = AuditEntry(at_ms=now_ms(), by=by, action=Action.SECRET_REKEY, subject=instance.cached_id)
    return instance.rekey(entry)
