"""Evaluating the workflow files of a commit, in a separate process with a deadline."""

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any

import reactorcide
from reactorcide.domain.errors import InfrastructureError, InvalidInput
from reactorcide.domain.runs import Commit
from reactorcide.lib import programs
from reactorcide.lib.records import record
from reactorcide.threads import SlotsByUser

_PROGRAM = "reactorcide.runs.evaluation"
_MAX_AT_ONCE = 3
"""Two of one user, and one for others."""
_BUSY = "too many workflows are evaluated at the moment; try again in a few seconds"
_TOO_LONG = "evaluating the workflow files took longer than {:g} s; shorten them, or their matrices"


def _files() -> Mapping[str, tuple[int, int]]:
    """Return modification time and size of each file that the program may import."""
    package = Path(reactorcide.__file__).parent
    choices = {}
    for folder in ("domain", "lib", "runs", "workflows"):
        for path in (package / folder).glob("*.py"):
            # It may be replaced at this moment.
            with suppress(FileNotFoundError):
                about = path.stat()
                choices[str(path)] = (about.st_mtime_ns, about.st_size)
    return choices


_FILES = _files()
"""The files at the start of the service, whose protocol it speaks."""


@record(kw_only=True)
class Evaluation:
    """The evaluation of a workflow for an event."""

    workflow_id: str
    is_readable: bool
    """False if the file is not YAML; then its id comes from its name."""
    workflow_name: str
    file: str
    files: Sequence[str]
    """The paths of its files."""
    warnings: tuple[str, ...]
    errors: Sequence[str]
    """The errors, each with its place; then there are no nodes."""
    skipped: str | None
    """Why the event does not start it; then there are no nodes."""
    variables: Mapping[str, str]
    """The values of ``vars``."""
    nodes: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """See ``evaluation``; in the order of the graph."""
    concurrency: Mapping[str, str] | None = None
    """The ``group`` of the run, and ``when_full``."""


class Evaluator:
    """Evaluates workflows, few at a time, and not all of one user. Thread-safe."""

    def __init__(self, *, timeout_s: float = 30.0, at_once: int = _MAX_AT_ONCE) -> None:
        self._timeout_s = timeout_s
        self._slots = SlotsByUser(at_once)

    def evaluate(
        self,
        commit: Commit,
        workflow: str | None,
        event: Mapping[str, str],
        *,
        user_id: str,
        changed: Sequence[str] | None,
        variables: Mapping[str, str],
        environment: Mapping[str, str] | None = None,
        jobs: Sequence[str] | None = None,
    ) -> Evaluation:
        """Evaluate a workflow, named by its id or file, for an event.

        ``None`` is the only one that there is. ``user_id`` is whose share of the slots it takes. ``changed``
        are the files that differ, ``None`` if that is not known; ``variables`` take the place of ``vars`` in
        the file, ``environment`` that of ``${env:…}``. All are skipped but ``jobs`` and those that they need.
        Raises ``InvalidInput`` where there is no such workflow or job, or evaluating takes too long, and
        ``Busy`` where too many are evaluated just now.
        """
        (evaluation,) = self._evaluate(
            user_id,
            commit,
            {
                "all": False,
                "workflow": workflow,
                "event": dict(event),
                "changed": changed,
                "vars": dict(variables),
                "env": dict(environment or {}),
                "jobs": None if jobs is None else list(jobs),
            },
        )
        return evaluation

    def evaluate_all(
        self, commit: Commit, event: Mapping[str, str], *, user_id: str, changed: Sequence[str] | None
    ) -> list[Evaluation]:
        """Evaluate each workflow that the event can start; see ``evaluate``.

        One that is skipped answers to the event and has ``paths`` that name no file that differs.
        """
        named: dict[str, Any] = {"workflow": None, "vars": {}, "env": {}, "jobs": None}
        request = {"all": True, "event": dict(event), "changed": changed, **named}
        return self._evaluate(user_id, commit, request)

    def _evaluate(self, user_id: str, commit: Commit, request: Mapping[str, Any]) -> list[Evaluation]:
        files = {path: base64.b64encode(data).decode() for path, data in commit.files.items()}
        request = {"files": files, "repository": commit.repository, **request}
        with self._slots.hold(user_id, _BUSY, timeout_s=self._timeout_s):
            answer = self._run(json.dumps(request))
        if "refused" in answer:
            raise InvalidInput(answer["refused"], "workflow")
        return [_evaluation(one) for one in answer["workflows"]]

    def _run(self, request: str) -> dict[str, Any]:
        try:
            written = programs.run(_PROGRAM, request.encode(), timeout_s=self._timeout_s)
        except programs.TooSlow as exc:
            raise InvalidInput(_TOO_LONG.format(self._timeout_s), "workflow") from exc
        except programs.TooLarge as exc:
            raise InvalidInput(
                "evaluating the workflow files takes more than 1 GiB of memory", "workflow"
            ) from exc
        except programs.ProgramError as exc:
            raise _failed(f"the workflow files cannot be evaluated: {exc}") from exc
        answer: dict[str, Any] = json.loads(written)
        return answer


def _failed(sentence: str) -> InfrastructureError:
    """Return the error of a failed evaluation: perhaps the program's files were replaced."""
    if _files() == _FILES:
        return InfrastructureError(sentence)
    return InfrastructureError(
        "workflow files cannot be evaluated: the files of Reactorcide were replaced while it runs; restart it"
    )


def _evaluation(answer: Mapping[str, Any]) -> Evaluation:
    try:
        return Evaluation(
            workflow_id=answer["id"],
            is_readable=answer["is_readable"],
            workflow_name=answer["name"],
            file=answer["file"],
            files=answer["files"],
            warnings=tuple(answer["warnings"]),
            errors=answer["errors"],
            skipped=answer["skipped"],
            variables=answer["vars"],
            nodes=answer["nodes"],
            concurrency=answer["concurrency"],
        )
    except KeyError as exc:
        raise _failed(f"the evaluation of the workflow files left out {exc}") from exc
