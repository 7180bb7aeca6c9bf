"""Use cases of jobs, one file for each; the API and the worker call them."""

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

from reactorcide.corndogs.task import Corndogs
from reactorcide.domain.definition import JobDefinition
from reactorcide.jobs.hints import WorkerHints
from reactorcide.jobs.sealing import Sealing
from reactorcide.lib.notifier import Notifier
from reactorcide.lib.records import record
from reactorcide.logs import LogStore
from reactorcide.metrics import Metrics
from reactorcide.objects import ObjectStore
from reactorcide.store import Store
from reactorcide.threads import SlotsByUser

_MAX_SOURCE_CHECKS = 3
"""Uploaded sources that are read at once, two of one user and one of others: each may take some 50 MB."""


class JobRules(Protocol):
    """Checks which images and sources jobs may use."""

    def check(self, definition: JobDefinition) -> None:
        """Raise ``InvalidInput`` unless the image and the source that a job names may be used."""

    def check_images(self, image: str | None, of_services: Mapping[str, str]) -> None:
        """Raise ``InvalidInput`` unless jobs may use an image, if it is known, and those of services."""

    def check_git_url(self, url: str) -> None:
        """Raise ``InvalidInput`` for ``git_url`` unless jobs may clone it."""

    def check_git_ref(self, ref: str) -> None:
        """Raise ``InvalidInput`` for ``git_ref`` unless it can name a branch, tag, full ref or commit."""


@record
class StoredJobs:
    """The collaborators of use cases that read or remove jobs."""

    store: Store
    objects: ObjectStore
    logs: LogStore
    notifier: Notifier
    source_checks: SlotsByUser = field(default_factory=lambda: SlotsByUser(_MAX_SOURCE_CHECKS), kw_only=True)


@record
class JobContext(StoredJobs):
    """The collaborators of use cases that submit jobs, run them, or end them."""

    metrics: Metrics
    corndogs: Corndogs
    rules: JobRules
    hints: WorkerHints
    sealing: Sealing

    @property
    def instance_id(self) -> str:
        """The installation's id, which is in its tasks and containers."""
        return self.store.instance.cached_id
