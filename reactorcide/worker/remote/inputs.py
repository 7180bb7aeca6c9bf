"""What a job of a run gets from its run and leaves to it, as workers on other machines exchange it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reactorcide.domain.caches import CacheSpec
from reactorcide.domain.errors import JobFailed
from reactorcide.domain.git_access import DeployKey, GitAccess
from reactorcide.domain.jobs import Outcome
from reactorcide.domain.runs import RunFiles
from reactorcide.lib.tar import Entry


class Inputs:
    """The inputs of one attempt."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    @property
    def is_trusted(self) -> bool:
        """Whether the job's code is trusted."""
        return bool(self._data["trusted"])

    @property
    def caches(self) -> tuple[CacheSpec, ...]:
        """The caches that the job names."""
        return tuple(
            CacheSpec(tuple(item["key"]), tuple(item["paths"]), tuple(item["restore_keys"]))
            for item in self._data["caches"]
        )

    def git_access(self, learned: Callable[[str], None]) -> GitAccess | None:
        """Return the credentials of the project; ``learned`` gets the keys of servers seen first."""
        access = self._data["git_access"]
        if access is None:
            return None
        private = access["deploy_key"]
        key = None
        if private is not None:
            key = DeployKey(private=private, known_hosts=access["known_hosts"] or "", learned=learned)
        return GitAccess(
            git_url=access["git_url"], username=access["username"], token=access["token"], deploy_key=key
        )

    def run_files(self, artifacts: Callable[[], Iterator[Entry]]) -> RunFiles:
        """Return the files from the run; raises ``JobFailed`` if they cannot be had."""
        files = self._data["run_files"]
        if files["problem"] is not None:
            raise JobFailed(files["problem"])
        return RunFiles(
            variables=files["variables"],
            artifacts=artifacts() if files["has_artifacts"] else None,
            ci_sha=files["ci_sha"],
            user=files["user"],
        )


def outputs_json(outcome: Outcome) -> dict[str, Any] | None:
    """Return the outputs of a job as the service takes them."""
    outputs = outcome.outputs
    return None if outputs is None else {"values": dict(outputs.values), "variables": dict(outputs.variables)}
