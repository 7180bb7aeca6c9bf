"""Who may use the service: users, their tokens, invitations; and who did what."""

from dataclasses import dataclass

from reactorcide.store import Store


@dataclass(frozen=True, slots=True)
class AccountContext:
    """The collaborators of every use case."""

    store: Store
