"""Named secrets, like ``pypi:token``: of the service or of a project. Times are Unix milliseconds in UTC."""

import re
from collections.abc import Collection, Sequence

from reactorcide.domain.definition import MIN_SECRET_CHARS
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.lib.globs import Globs, problem
from reactorcide.lib.records import record

NAME = r"[A-Za-z0-9_-][A-Za-z0-9/_-]*:[A-Za-z0-9/_-]+"
MAX_NAME_CHARS = 255
MAX_RULES = 100
"""Events, branches, workflows or projects that a secret names."""
UNNAMED_COMMIT = "a commit to which no branch and no tag leads; start the run for a branch or a tag"
_NAME = re.compile(NAME)
_PULL_REQUEST = ("pull_request_opened", "pull_request_updated")
"""Events whose code is not merged yet: a secret must list them explicitly."""


@record(kw_only=True)
class SecretRules:
    """The rules for the use of a secret."""

    events: tuple[str, ...] | None = None
    """``None``: all but pull requests that are opened or updated."""
    branches: tuple[str, ...] | None = None
    """Globs of the branches whose code can use it; ``None``: any branch or tag."""
    workflows: tuple[str, ...] | None = None
    """Ids of workflows; ``None``: any."""

    def refusal(self, *, event: str, branch: str, tag: str, workflow_id: str) -> str | None:
        """Return a phrase that names the rule against this use; ``None`` if it is allowed."""
        if not (branch or tag):
            # Anyone can add a commit to a repository, by a pull request of a fork.
            return UNNAMED_COMMIT
        if event in _PULL_REQUEST if self.events is None else event not in self.events:
            return "pull_request" if event in _PULL_REQUEST else event
        if self.branches is not None and not (branch and Globs(self.branches).match(branch)):
            return f"the branch {branch}" if branch else f"the tag {tag}"
        if self.workflows is not None and workflow_id not in self.workflows:
            return f"the workflow {workflow_id}"
        return None


@record(kw_only=True)
class SecretUse:
    """The last run of a workflow that used a secret."""

    project_id: str
    workflow_id: str
    run_id: str
    used_at_ms: int


@record(kw_only=True)
class NamedSecret:
    """A secret without its value."""

    project_id: str | None
    """``None``: of the service."""
    name: str
    rules: SecretRules
    projects: tuple[str, ...] = ()
    """The ids of the projects that can use it, if it is a secret of the service."""
    created_at_ms: int
    updated_at_ms: int
    uses: Sequence[SecretUse] = ()
    """Its last uses, newest first."""


def check_name(name: str) -> None:
    """Raise ``InvalidInput`` unless a secret may have this name."""
    if len(name) > MAX_NAME_CHARS or _NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"{name[:100]!r} is not a secret name; it has to be like pypi:token, a path and a key of "
            "letters, digits, '/', '_' and '-'",
            "name",
        )


def check_value(value: str) -> None:
    """Raise ``InvalidInput`` unless a secret may have this value."""
    if len(value) < MIN_SECRET_CHARS:
        raise InvalidInput(
            f"the value has fewer than {MIN_SECRET_CHARS} characters, and could not be masked in a log",
            "value",
        )
    if len(value.encode()) > MAX_VALUE_BYTES or "\0" in value:
        raise InvalidInput(f"the value is longer than {MAX_VALUE_BYTES >> 10} KiB or contains NUL", "value")


def check_globs(globs: Collection[str]) -> None:
    """Raise ``InvalidInput`` for an invalid branch glob."""
    for glob in globs:
        wrong = problem(glob)
        if wrong is not None:
            raise InvalidInput(f"branches: {glob!r} {wrong}", "branches")
