"""Problems of a workflow file, collected, each with its place."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

from reactorcide.domain.errors import ReactorcideError

MAX_PROBLEMS = 100
"""Maximum number of listed problems of one workflow; one more says that there are others."""
_MAX_QUOTED_CHARS = 60
_MAX_COMPARED = 200


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file; lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """An error, or a warning about something that is ignored."""

    place: Place
    message: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {'warning: ' if self.is_warning else ''}{self.message}"


class WorkflowError(ReactorcideError):
    """A workflow file is wrong; ``str()`` has a line for each error."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems if not problem.is_warning))


class Problems:
    """Collects the problems of one workflow, each once."""

    def __init__(self) -> None:
        self._problems: dict[Problem, None] = {}
        self.has_errors = False

    def error(self, place: Place, message: str, *, got: str = "", known: Iterable[str] = ()) -> None:
        """Record an error; if ``got`` is similar to one of the ``known`` names, the message suggests it."""
        self.has_errors = True
        # Looking for a suggestion costs more than all the rest.
        suggestion = _did_you_mean(got, known) if len(self._problems) < MAX_PROBLEMS else ""
        self._add(Problem(place, message + suggestion))

    def warn(self, place: Place, message: str) -> None:
        """Record that something is ignored."""
        self._add(Problem(place, message, is_warning=True))

    def add(self, problems: Iterable[Problem]) -> None:
        """Record problems that were found before."""
        for problem in problems:
            self.has_errors |= not problem.is_warning
            self._add(problem)

    def _add(self, problem: Problem) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems[problem] = None
        elif len(self._problems) == MAX_PROBLEMS and problem not in self._problems:
            more = Problem(problem.place, f"there are more than {MAX_PROBLEMS} problems; these come first")
            self._problems[more] = None

    def sorted(self) -> tuple[Problem, ...]:
        """Return all problems by file and line."""
        return tuple(sorted(self._problems))


def quoted(text: str) -> str:
    """Return a text from a file in quotes, on one line, cut to a length that can be read."""
    return repr(text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "…")


def _did_you_mean(text: str, known: Iterable[str]) -> str:
    names = list(islice(known, _MAX_COMPARED))
    if not names or len(text) > _MAX_QUOTED_CHARS:
        return ""
    # Before the distance counts what is only spelt in another case, or with another kind of hyphen.
    alike = [name for name in names if _folded(name) == _folded(text)]
    longer = sorted((name for name in names if len(text) > 1 and name.startswith(text)), key=len)
    near = alike or get_close_matches(text, names, n=1) or longer
    return f"; did you mean {near[0]}?" if near else ""


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")
