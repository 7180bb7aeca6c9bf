"""The graph of a run: its nodes and their needs."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from reactorcide.lib.records import record
from reactorcide.workflows.model import Concurrency, Job


@record(kw_only=True)
class Node:
    """A node of a run's graph: a job, or one combination of a matrix."""

    name: str
    """For a matrix with its values: ``test (3.11)``."""
    job_name: str
    job: Job
    combination: Mapping[str, str] = field(default_factory=dict)
    max_parallel: int | None = None
    """Maximum number of nodes of its job that run at once."""
    skipped: str | None = None
    """A phrase that says why it is excluded from this run."""

    @property
    def group(self) -> str | None:
        """Its concurrency group, with the values of this run."""
        return None if self.job.concurrency is None else self.job.concurrency.group.fill(str)


@dataclass(frozen=True)
class Graph:
    """The nodes of a run, each after those that it needs."""

    nodes: tuple[Node, ...]
    concurrency: Concurrency | None = None
    """The group of the whole run."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The values of ``vars``."""

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def by_job(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the nodes of each job."""
        names: dict[str, list[str]] = {}
        for node in self.nodes:
            names.setdefault(node.job_name, []).append(node.name)
        return {job: tuple(nodes) for job, nodes in names.items()}

    def only(self, jobs: Collection[str]) -> "Graph":
        """Return the graph in which all are skipped but some jobs and those that they need."""
        needed = with_needs(jobs, ((node.job_name, node.job.needs) for node in reversed(self.nodes)))
        nodes = (
            node if node.job_name in needed else replace(node, skipped=node.skipped or "it was not asked for")
            for node in self.nodes
        )
        return replace(self, nodes=tuple(nodes))

    def needs(self, node: Node) -> tuple[str, ...]:
        """Return the names of the nodes that must end before ``node`` starts."""
        return tuple(name for job in node.job.needs for name in self.by_job[job])


EMPTY = Graph(())


def with_needs(jobs: Iterable[str], backwards: Iterable[tuple[str, Iterable[str]]]) -> set[str]:
    """Return the names of some jobs and of all jobs that must end before them.

    ``backwards`` are the nodes of a graph, the last one first: the name of its job, and what that needs.
    """
    names = set(jobs)
    for name, needs in backwards:
        if name in names:
            names.update(needs)
    return names
