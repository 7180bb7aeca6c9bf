"""Users, their tokens, invitations, and the audit log."""

from reactorcide.lib.records import record
from reactorcide.store import Store


@record
class AccountContext:
    """The collaborators of every use case."""

    store: Store
