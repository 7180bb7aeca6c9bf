"""Read the audit log."""

from reactorcide.accounts import AccountContext
from reactorcide.domain.audit import AuditEntry, AuditFilter


def page(
    context: AccountContext, wanted: AuditFilter, *, limit: int, before: int | None
) -> tuple[list[tuple[int, AuditEntry]], int]:
    """Return a page of entries and how many there are in all; see ``Audit.page``."""
    return context.store.audit.page(wanted, limit=limit, before=before)
