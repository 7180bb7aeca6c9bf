"""Users, their tokens, invitations, and the audit log."""

from dataclasses import dataclass

from reactorcide.store import Store


@dataclass(frozen=True, slots=True)
class AccountContext:
    """The collaborators of every use case."""

    store: Store
