"""Conversion between rows and objects of runs and nodes."""

import json
from collections.abc import Sequence
from typing import Any

from reactorcide.domain.caches import CacheScope
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.reports import TestCounts
from reactorcide.domain.runs import Node, NodeState, Run, RunSource, RunStatus
from reactorcide.domain.secrets import redacted_url
from reactorcide.store.models.runs import NodeRow, RunRow

RUN_COLUMNS = tuple(name for name in RunRow._meta.columns if name != "sealed")
NODE_COLUMNS = tuple(name for name in NodeRow._meta.columns if name not in ("run_id", "position", "sealed"))
_FLAGS = ("pinned", "is_trusted", "is_held", "waits_for_room")


def row_of_run(run: Run) -> dict[str, object]:
    """Return the columns of a run."""
    source = run.source
    row: dict[str, object] = {
        "git_url": None if source.git_url is None else redacted_url(source.git_url),
        "git_ref": source.git_ref,
        "source_id": source.source_id,
        "event_name": run.event.get("name", ""),
        "branch": run.event.get("branch", ""),
    }
    return row | {name: getattr(run, name) for name in RUN_COLUMNS if name not in row}


def run_of_row(row: Sequence[Any]) -> Run:
    """Return the run of a row with ``RUN_COLUMNS``."""
    values = dict(zip(RUN_COLUMNS, row, strict=True))
    source = RunSource(**{name: values.pop(name) for name in ("git_url", "git_ref", "source_id")})
    del values["event_name"], values["branch"]
    values |= {
        "status": RunStatus(values["status"]),
        **{name: bool(values[name]) for name in _FLAGS},
        "event": json.loads(values["event"]),
        "warnings": tuple(json.loads(values["warnings"] or "[]")),
        "cache_scope": cache_scope_of(values["cache_scope"]),
    }
    return Run(source=source, **values)


def cache_scope_of(text: str | None) -> CacheScope | None:
    """Return the scope of a row's JSON."""
    if text is None:
        return None
    values = json.loads(text)
    return CacheScope(**values | {"branches": tuple(values["branches"])})


def node_of_row(row: Sequence[Any]) -> Node:
    """Return the node of a row with ``NODE_COLUMNS`` and the status, the error and the tests of its job."""
    *columns, job_status, job_error, tests = row
    values = dict(zip(NODE_COLUMNS, columns, strict=True))
    values |= {
        "needs": tuple(json.loads(values["needs"])),
        "combination": json.loads(values["combination"]),
        "allow_failure": bool(values["allow_failure"]),
        "is_held": bool(values["is_held"]),
        "state": NodeState(values["state"]),
        "job_status": None if job_status is None else JobStatus(job_status),
        "job_error": job_error,
        "tests": None if tests is None else TestCounts(*json.loads(tests)),
    }
    return Node(**values)
