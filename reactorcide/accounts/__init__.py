"""Who may use the service: users and their tokens."""

from dataclasses import dataclass

from reactorcide.store.accounts import AccountStore


@dataclass(frozen=True, slots=True)
class AccountContext:
    """The collaborators of every use case."""

    store: AccountStore
