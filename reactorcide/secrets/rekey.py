"""Renew the key that encrypts the secrets in the database."""

from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms


def rekey(context: StoredJobs, *, by: Actor) -> int:
    """Encrypt all secrets with a new key, and return the number of encrypted values.

    No service may use the database. It can be killed at any point: then all values are encrypted with one
    key, the old or the new one, which the next start uses. Raises ``StoreError``, and ``ConfigurationError``
    if the key cannot be read or written.
    """
    instance = context.store.instance
    entry = AuditEntry(at_ms=now_ms(), by=by, action=Action.SECRET_REKEY, subject=instance.cached_id)
    return instance.rekey(entry)
