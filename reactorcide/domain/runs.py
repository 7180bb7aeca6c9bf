"""Runs of workflows: the run, and the nodes of its graph.

All times are Unix milliseconds in UTC; ``None`` means that it has not happened.
"""

from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from reactorcide.domain.caches import CacheScope
from reactorcide.domain.jobs import FINAL, JobStatus
from reactorcide.domain.reports import TestCounts
from reactorcide.lib.records import record
from reactorcide.lib.tar import Entry

MAX_REASON_CHARS = 16_000
"""A workflow file may have a hundred errors, and all of them are shown."""


class RunStatus(StrEnum):
    """The status of a run."""

    WAITING = "waiting"
    """It has not started: it waits for approval, or for its concurrency group."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """There was nothing to do."""

    @property
    def is_final(self) -> bool:
        """Return whether the run has ended: nothing of it runs or waits."""
        return self not in (RunStatus.WAITING, RunStatus.RUNNING)


class NodeState(StrEnum):
    """The state of a node."""

    WAITING = "waiting"
    """It has no job yet."""
    ACTIVE = "active"
    """Its job is queued or runs."""
    SKIPPED = "skipped"
    """It did not run, and none of its needs failed. Final."""
    SKIPPED_BY_FAILURE = "skipped_by_failure"
    """It did not run because of a failure, and counts as failed for its dependents. Final."""
    COMPLETED = "completed"
    """Final."""
    FAILED = "failed"
    """Final."""
    CANCELLED = "cancelled"
    """Final."""

    @property
    def is_final(self) -> bool:
        """Return whether the state is final."""
        return self not in (NodeState.WAITING, NodeState.ACTIVE)

    def counts_as_failed(self, *, allow_failure: bool) -> bool:
        """Return whether this state fails the run, and the nodes that need success."""
        if self is NodeState.SKIPPED_BY_FAILURE:
            return True
        return self in (NodeState.FAILED, NodeState.CANCELLED) and not allow_failure

    @classmethod
    def of_job(cls, status: JobStatus) -> "NodeState":
        """Return the state of a node, from the status of its newest job."""
        return cls(status.value) if status in FINAL else cls.ACTIVE


@record(kw_only=True)
class RunSource:
    """The source of a run's files: a commit of a repository, or an uploaded source."""

    git_url: str | None = None
    git_ref: str | None = None
    """As requested; the run's ``sha`` is the resolved commit."""
    source_id: str | None = None


@record(kw_only=True)
class Run:
    """A run of a workflow, from the database."""

    run_id: str
    user_id: str
    project_id: str | None = None
    """``None``: it belongs to its user."""
    number: int
    """Its number from 1 among the runs of its project, or among its user's runs without a project."""
    attempt: int
    """The number of the attempt, from 1; each repetition adds one."""
    workflow_id: str
    workflow_name: str
    file: str
    event: Mapping[str, str]
    """The fields of the event by name, without missing ones. In addition to those of workflow files, a pull
    request has ``base_sha``, ``head_url`` and ``author``."""
    source: RunSource
    sha: str | None
    status: RunStatus
    created_at_ms: int
    updated_at_ms: int
    completed_at_ms: int | None = None
    reason: str | None = None
    """Why it failed, was skipped or was cancelled, if its nodes do not show that."""
    warnings: tuple[str, ...] = ()
    cache_scope: CacheScope | None = None
    """Which caches its jobs may use; ``None`` for a run of an older version: none."""
    turn: int = 0
    """Orders all runs by their last start or repetition."""
    group_key: str | None = None
    """Its concurrency group, as ``group_key`` returns it."""
    when_full: str | None = None
    """What happens if that group is in use: a ``WhenFull``."""
    status_context: str | None = None
    """The context of its commit status; ``None``: it has no commit status."""
    pinned: bool = False
    """Pinned: retention does not remove it, nor its jobs."""
    is_trusted: bool = True
    """False for untrusted code: it gets no secrets, writes no caches, and uses only the project's queue."""
    is_held: bool = False
    """It waits for approval, and then does not count in its concurrency group."""
    waits_for_room: bool = False
    """Some of its nodes are ready, and wait because of the project's job limit."""

    @property
    def owner_id(self) -> str:
        """The owner of its caches: the project, or else the user."""
        return self.project_id or self.user_id

    @property
    def is_final(self) -> bool:
        """Return whether the run has ended: nothing of it runs or waits."""
        return self.completed_at_ms is not None


@record(kw_only=True)
class Node:
    """A node of a run, from the database."""

    name: str
    job_name: str
    needs: tuple[str, ...] = ()
    """The names of the jobs that must end before it starts."""
    condition: str
    allow_failure: bool
    max_parallel: int | None
    combination: Mapping[str, str] = field(default_factory=dict)
    skipped: str | None
    """Why it is excluded from this run."""
    state: NodeState = NodeState.WAITING
    reason: str | None = None
    """Why it ended without a job."""
    job_id: str | None = None
    """Its newest job."""
    job_status: JobStatus | None = None
    """``None`` if it has no job, or its job was removed."""
    job_error: str | None = None
    """The error of its newest job, if any."""
    tests: TestCounts | None = None
    """The test results of its newest job, if any."""
    jobs: int = 0
    """The number of jobs that were created for it."""
    group_key: str | None = None
    """Its concurrency group, as ``group_key`` returns it; separate from a run's group of the same name."""
    when_full: str | None = None
    """What happens if that group is in use: a ``WhenFull``."""
    is_held: bool = False
    """It waits only for its concurrency group."""

    @property
    def has_failed(self) -> bool:
        """Return whether it fails its run."""
        return self.state.counts_as_failed(allow_failure=self.allow_failure)

    @property
    def status(self) -> str:
        """The status for clients: ``waiting``, ``skipped``, or the status of its newest job."""
        if self.state is NodeState.ACTIVE and self.job_status is not None:
            return self.job_status
        return "skipped" if self.state is NodeState.SKIPPED_BY_FAILURE else self.state


@record(kw_only=True)
class RunFiles:
    """The files that the container of a job gets from its run."""

    variables: Mapping[str, str]
    """The run's vars, and the outputs of earlier jobs."""
    artifacts: Iterator[Entry] | None = None
    """Artifacts of the jobs in ``artifacts_from``, a directory for each."""
    ci_sha: str | None = None
    """The commit of the workflow file; ``None``: that of the job's source."""
    user: str | None = None
    """The user of its command, in the engine's format; ``None``: the user of the image."""


def group_key(owner: str, group: str) -> str:
    """Return the key of a concurrency group of a project or user."""
    return f"{owner}/{group}"


WAITS_FOR_APPROVAL = "it waits for approval"


def group_phrase(key: str) -> str:
    """Return a phrase that names the concurrency group with a key."""
    return f"the concurrency group {key.partition('/')[2]}"


def waits_for_group(key: str) -> str:
    """Return a sentence that says which concurrency group is waited for."""
    return f"it waits for {group_phrase(key)}"


@record(kw_only=True)
class GroupMember:
    """A run or node that holds a concurrency group, or waits for it."""

    run_id: str
    number: int
    """Of the run."""
    turn: int
    """Of the run."""
    node: str | None
    """``None`` for a run."""
    has_place: bool

    def __str__(self) -> str:
        """Return a phrase that names it."""
        return f"#{self.number}" if self.node is None else f"{self.node} of #{self.number}"


JobTemplate = Mapping[str, Any]
"""The definition of a node's job as JSON, with references to outputs of other nodes."""


@record(kw_only=True)
class RunFilter:
    """A filter of runs; ``None`` matches any."""

    user_id: str | None = None
    project_id: str | None = None
    member_id: str | None = None
    """Of the runs of projects, only those of projects that this user is a member of."""
    workflow_id: str | None = None
    branch: str | None = None
    event: str | None = None
    status: RunStatus | None = None


@record(kw_only=True)
class RunEvent:
    """A status change of a run, or of a ``node`` of it without a job event."""

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


@record(kw_only=True)
class Comparison:
    """The base of a comparison of files: a commit, or the merge base with a branch."""

    is_merge: bool = False
    """The commit is the result of a merge: with two parents it is compared with the first one; otherwise,
    after a squash or a rebase, with ``sha``."""
    sha: str | None = None
    branch: str | None = None
    """Without ``sha``; ``None``: the repository's default branch."""
    own_branch: str | None = None
    """The branch of the commit itself, which is not used as a base."""


@record(kw_only=True)
class Commit:
    """The input of a run: the workflow files and their commit."""

    files: Mapping[str, bytes]
    """The files of ``.reactorcide/workflows`` and ``.reactorcide/jobs``, by path."""
    repository: str
    """The name of the repository."""
    sha: str | None = None
    base_sha: str | None = None
    """The commit of the files, if it differs: the base of a pull request."""
    branch: str | None = None
    """The branch that was asked for, if it was one."""
    default_branch: str | None = None
    tag: str | None = None
    """The tag that was asked for, if it was one."""
    message: str = ""
    is_reachable: bool = False
    """Whether it is reachable from a branch or tag of the repository, if that was requested."""
    changed: tuple[str, ...] | None = None
    """The files that differ from the base of the comparison; ``None`` if unknown."""
