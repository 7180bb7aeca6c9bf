"""Runs of workflows: the run, and the nodes of its graph.

All times are Unix milliseconds in UTC; ``None`` means that it has not happened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reactorcide.domain.caches import CacheScope
from reactorcide.domain.jobs import FINAL, JobStatus
from reactorcide.domain.reports import TestCounts
from reactorcide.lib.tar import Entry

MAX_REASON_CHARS = 16_000
"""A workflow file may have a hundred errors, and all of them are shown."""


class RunStatus(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"
    """It has not started: it waits for approval, or for the place of its concurrency group."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """There was nothing to do."""

    @property
    def is_final(self) -> bool:
        """Return whether nothing of such a run runs or waits."""
        return self not in (RunStatus.WAITING, RunStatus.RUNNING)


class NodeState(StrEnum):
    """Where a node stands."""

    WAITING = "waiting"
    """It has no job yet."""
    ACTIVE = "active"
    """Its job is queued or runs."""
    SKIPPED = "skipped"
    """It did not run, and none of those that it needs has failed. Final."""
    SKIPPED_BY_FAILURE = "skipped_by_failure"
    """It did not run because of a failure, and counts as failed for those who need it. Final."""
    COMPLETED = "completed"
    """Final."""
    FAILED = "failed"
    """Final."""
    CANCELLED = "cancelled"
    """Final."""

    @property
    def is_final(self) -> bool:
        """Return whether it can never change again."""
        return self not in (NodeState.WAITING, NodeState.ACTIVE)

    def counts_as_failed(self, *, allow_failure: bool) -> bool:
        """Return whether the run of such a node fails, and those nodes that need it to succeed."""
        if self is NodeState.SKIPPED_BY_FAILURE:
            return True
        return self in (NodeState.FAILED, NodeState.CANCELLED) and not allow_failure

    @classmethod
    def of_job(cls, status: JobStatus) -> "NodeState":
        """Return where a node stands whose newest job has a status."""
        return cls(status.value) if status in FINAL else cls.ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """Where a run's files come from: a commit of a repository, or an uploaded source."""

    git_url: str | None = None
    git_ref: str | None = None
    """As it was asked for; ``sha`` of the run is what it led to."""
    source_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one workflow, as the database has it."""

    run_id: str
    user_id: str
    project_id: str | None = None
    """``None``: it belongs to its user."""
    number: int
    """Counts the runs of its project, or of its user those of no project, from 1."""
    attempt: int
    """Counts how often it was started: 1, and one more each time it is repeated."""
    workflow_id: str
    workflow_name: str
    file: str
    event: Mapping[str, str]
    """The fields of the event by name; those that it does not have are left out.

    Beside those of workflow files, of a pull request: ``base_sha``, ``head_url`` and ``author``."""
    source: RunSource
    sha: str | None
    status: RunStatus
    created_at_ms: int
    updated_at_ms: int
    completed_at_ms: int | None = None
    reason: str | None = None
    """Why it failed, was skipped or was cancelled, where no node tells."""
    warnings: tuple[str, ...] = ()
    cache_scope: CacheScope | None = None
    """Which caches its jobs may use; ``None`` for a run of an older version: none."""
    turn: int = 0
    """Puts all runs in the order in which they were started, or repeated last."""
    group_key: str | None = None
    """Its concurrency group, as ``group_key`` returns it."""
    when_full: str | None = None
    """What happens if the place of that group is taken: a ``WhenFull``."""
    status_context: str | None = None
    """Of the commit status that the forge gets; ``None``: it gets none."""
    pinned: bool = False
    """Kept with its jobs until somebody deletes it, whatever the retention says."""
    is_trusted: bool = True
    """False for the code of a stranger: it gets no secret, writes no cache, and waits in no queue but the
    project's."""
    is_held: bool = False
    """It waits for approval. Then it takes no place in its concurrency group."""
    waits_for_room: bool = False
    """Some of its nodes could have a job, and wait since its project has as many as may run at once."""

    @property
    def owner_id(self) -> str:
        """The project, or for a run of none its user: whom its caches belong to."""
        return self.project_id or self.user_id

    @property
    def is_final(self) -> bool:
        """Return whether nothing of it runs or waits."""
        return self.completed_at_ms is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a run, as the database has it."""

    name: str
    job_name: str
    needs: tuple[str, ...] = ()
    """The names of the jobs that have to be over before."""
    condition: str
    allow_failure: bool
    max_parallel: int | None
    combination: Mapping[str, str] = field(default_factory=dict)
    skipped: str | None
    """Why it does not run in this run at all."""
    state: NodeState = NodeState.WAITING
    reason: str | None = None
    """Why it ended without a job, or could not have one."""
    job_id: str | None = None
    """Its newest job."""
    job_status: JobStatus | None = None
    """``None`` if it has no job, or that was removed."""
    job_error: str | None = None
    """The error of its newest job, as far as it has one."""
    tests: TestCounts | None = None
    """The results in the JUnit files of its newest job, as far as it has left some."""
    jobs: int = 0
    """How many jobs it has had."""
    group_key: str | None = None
    """Its concurrency group, as ``group_key`` returns it; another one than that of a run of this name."""
    when_full: str | None = None
    """What happens if the place of that group is taken: a ``WhenFull``."""
    is_held: bool = False
    """It waits for nothing but the place of its concurrency group."""

    @property
    def has_failed(self) -> bool:
        """Return whether its run fails because of it."""
        return self.state.counts_as_failed(allow_failure=self.allow_failure)

    @property
    def status(self) -> str:
        """What clients see: ``waiting``, ``skipped``, or the status of its newest job."""
        if self.state is NodeState.ACTIVE and self.job_status is not None:
            return self.job_status
        return "skipped" if self.state is NodeState.SKIPPED_BY_FAILURE else self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """What the container of a job gets of its run."""

    variables: Mapping[str, str]
    """The run's vars, and what the jobs before it have written."""
    artifacts: Iterator[Entry] | None = None
    """Of the jobs that it needs and names, each in a directory."""
    ci_sha: str | None = None
    """The commit that the workflow file came from; ``None``: that of the job's source."""
    user: str | None = None
    """Whom its command runs as, as the engine has it; ``None``: the user of the image."""


def group_key(owner: str, group: str) -> str:
    """Return the key of a concurrency group, which belongs to a project, or to a user."""
    return f"{owner}/{group}"


WAITS_FOR_APPROVAL = "it waits for approval"


def group_phrase(key: str) -> str:
    """Return what a sentence calls the concurrency group with a key."""
    return f"the concurrency group {key.partition('/')[2]}"


def waits_for_group(key: str) -> str:
    """Return the sentence that somebody waits for the place of a concurrency group."""
    return f"it waits for {group_phrase(key)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMember:
    """A run or a node that has the place of a concurrency group, or waits for it."""

    run_id: str
    number: int
    """Of the run."""
    turn: int
    """Of the run."""
    node: str | None
    """``None`` if it is the run."""
    has_place: bool

    def __str__(self) -> str:
        """Return what a sentence calls it."""
        return f"#{self.number}" if self.node is None else f"{self.node} of #{self.number}"


JobTemplate = Mapping[str, Any]
"""The definition of a node's job as JSON, in which the outputs of other nodes are still to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a list shows; ``None`` is any."""

    user_id: str | None = None
    project_id: str | None = None
    member_id: str | None = None
    """Of the runs of projects, only those of projects that this user is a member of."""
    workflow_id: str | None = None
    branch: str | None = None
    event: str | None = None
    status: RunStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """A status change of a run, or of one of its ``node``s that no job tells."""

    event_id: int
    run_id: str
    number: int
    workflow_id: str
    node: str | None
    status_from: str | None
    status_to: str
    attempt: int
    """Of the run."""
    reason: str | None
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a commit is compared with to know which files differ: a commit, or where it has left a branch."""

    is_merge: bool = False
    """The commit is the result of a merge: if it has two parents it is compared with the first one, and else,
    after a squash or a rebase, with ``sha``."""
    sha: str | None = None
    branch: str | None = None
    """Without ``sha``; ``None``: the repository's default branch."""
    own_branch: str | None = None
    """The branch that the commit is on: it has not left that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a run is made from: the workflow files, and which commit they are of."""

    files: Mapping[str, bytes]
    """Those of ``.reactorcide/workflows`` and ``.reactorcide/jobs``, by path."""
    repository: str
    """What the repository is called."""
    sha: str | None = None
    base_sha: str | None = None
    """The commit that the files are of, where it is another one: the base of a pull request."""
    branch: str | None = None
    """The branch that was asked for, if it was one."""
    default_branch: str | None = None
    tag: str | None = None
    """The tag that was asked for, if it was one."""
    message: str = ""
    is_reachable: bool = False
    """Whether a branch or a tag of the repository leads to it, if that was asked."""
    changed: tuple[str, ...] | None = None
    """The files that differ from what it was compared with; ``None`` if that is not known."""
