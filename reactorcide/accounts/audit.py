"""Looking at what was done."""

from reactorcide.accounts import AccountContext
from reactorcide.domain.audit import AuditFilter, Deed


def page(
    context: AccountContext, wanted: AuditFilter, *, limit: int, before: int | None
) -> tuple[list[tuple[int, Deed]], int]:
    """Return a page of deeds and how many there are in all; see ``AuditStore.page``."""
    return context.audit.page(wanted, limit=limit, before=before)
