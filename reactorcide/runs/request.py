"""What a run is to be made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.runs import Comparison, RunSource

DEFAULT_REPOSITORY = "jobs"
"""What an uploaded source is called that has no name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A request to start a run."""

    source: RunSource
    project: str | None = None
    """The name or the id of the project whose repository is taken, at ``source.git_ref``."""
    workflow: str | None
    """Its id or the name of its file; ``None`` if there is only one."""
    event: Mapping[str, str]
    """The fields of the event, as a run has them; ``name`` is among them."""
    changed: Sequence[str] | None = None
    """The files that differ; ``None`` if that is not known, or git is asked by ``comparison``."""
    comparison: Comparison | None = None
    """What the commit is compared with."""
    heeds_skip: bool = False
    """Whether a commit whose message says ``[skip ci]`` starts nothing."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """In place of ``vars`` in the file."""
    git_access: GitAccess | None = None
    """What the project has for its repository."""
    repository: str = DEFAULT_REPOSITORY
    """What an uploaded source is called."""
    is_fork: bool = False
    """Whether the event is a pull request of a fork, so that the code is a stranger's."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of all jobs, and the values of ``${env:…}``; not for a run of a project."""
    jobs: Sequence[str] | None = None
    """The jobs that run, with those that they need; ``None``: all."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Values of ``${secret:…}`` by name; not for a run of a project, which has its own."""
