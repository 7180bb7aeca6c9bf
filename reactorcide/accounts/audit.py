"""Read the audit log."""

from reactorcide.accounts import AccountContext
from reactorcide.domain.audit import AuditEntry, AuditFilter


def page(
    context: AccountContext, filters: AuditFilter, *, limit: int, before: int | None
) -> tuple[list[tuple[int, AuditEntry]], int]:
    """Return a page of entries and their total number; see ``Audit.page``."""
    return context.store.audit.page(filters, limit=limit, before=before)
