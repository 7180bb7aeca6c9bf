"""Who may use the service: users, their tokens, invitations; and who did what."""

from dataclasses import dataclass

from reactorcide.store.accounts import AccountStore
from reactorcide.store.audit import AuditStore


@dataclass(frozen=True, slots=True)
class AccountContext:
    """The collaborators of every use case."""

    store: AccountStore
    audit: AuditStore
