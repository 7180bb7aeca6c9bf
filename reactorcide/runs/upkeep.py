"""Continuing runs that a crash has interrupted."""

from reactorcide.jobs import JobContext, dependents, ending
from reactorcide.jobs.dependents import Followed
from reactorcide.lib.clock import now_ms
from reactorcide.store import Records

_UNCHANGED_MS = 5_000
_AT_ONCE = 50


class RunUpkeep:
    """Resolves open runs again, some at a time, in turn. For one thread."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._checked_up_to = ""

    def resolve_open(self) -> None:
        """Resolve runs that have not changed for a while; usually there is nothing to do."""
        run_ids = self._context.store.runs.open(
            before_ms=now_ms() - _UNCHANGED_MS, after=self._checked_up_to, limit=_AT_ONCE
        )
        self._checked_up_to = run_ids[-1] if len(run_ids) == _AT_ONCE else ""
        for run_id in run_ids:
            ending.after_commit(self._context, self._resolve(run_id))

    def _resolve(self, run_id: str) -> Followed:
        def write(tx: Records) -> Followed:
            return dependents.resolve(tx, run_id, now_ms=now_ms())

        return self._context.store.write(write)
