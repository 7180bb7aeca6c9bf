"""The request of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import field

from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.runs import Comparison, RunSource
from reactorcide.lib.records import record

DEFAULT_REPOSITORY = "jobs"
"""The default name of an uploaded source."""


@record(kw_only=True)
class Start:
    """A request to start a run."""

    source: RunSource
    project: str | None = None
    """The name or id of the project; the run uses its repository at ``source.git_ref``."""
    workflow: str | None
    """Its id or the name of its file; ``None`` if there is only one."""
    event: Mapping[str, str]
    """The fields of the event, as a run has them; ``name`` is among them."""
    changed: Sequence[str] | None = None
    """The files that differ; ``None`` if unknown, or if git determines them by ``comparison``."""
    comparison: Comparison | None = None
    """The base of the comparison."""
    heeds_skip: bool = False
    """Whether a commit whose message says ``[skip ci]`` starts nothing."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Values that override ``vars`` in the file."""
    git_access: GitAccess | None = None
    """The project's credentials for its repository."""
    repository: str = DEFAULT_REPOSITORY
    """The name of an uploaded source."""
    is_fork: bool = False
    """Whether the event is a pull request of a fork, so that the code is untrusted."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of all jobs, and the values of ``${env:…}``; not for a run of a project."""
    jobs: Sequence[str] | None = None
    """The jobs to run, with their needs; ``None``: all."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Values of ``${secret:…}`` by name; not for a run of a project, which has its own."""
