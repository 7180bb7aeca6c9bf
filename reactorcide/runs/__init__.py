"""Use cases of workflow runs, one file for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from reactorcide.lib.records import record

if TYPE_CHECKING:
    # Imported for types only: the program that evaluates workflows is in this package, and starts for each
    # run.
    from reactorcide.domain.git_access import GitAccess
    from reactorcide.domain.runs import Commit, Comparison
    from reactorcide.jobs import JobContext
    from reactorcide.jobs.defaults import JobDefaults
    from reactorcide.runs.evaluate import Evaluator


class Commits(Protocol):
    """Reads the workflow files of a commit."""

    def commit(
        self,
        git_url: str,
        git_ref: str | None,
        user_id: str,
        *,
        deadline: float,
        comparison: Comparison | None = None,
        access: GitAccess | None = None,
        asks_reachable: bool = False,
    ) -> Commit:
        """Return the workflow files of the commit that a ref leads to, for a run of that user.

        ``access`` is what a project has for its repository. With ``comparison`` also which files differ, if
        a workflow asks for that, and with ``asks_reachable`` whether a branch or a tag leads to it.
        ``deadline`` is in seconds of ``time.monotonic``. Raises ``JobFailed`` if they cannot be had,
        ``InvalidInput`` if that repository may not be used, and ``InfrastructureError``.
        """


@record
class RunContext:
    """The collaborators of use cases that start runs and change them."""

    jobs: JobContext
    commits: Commits
    evaluator: Evaluator
    defaults: JobDefaults
