"""What workers say of an attempt's artifacts, as JSON: checked as a whole before anything of it is stored."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.reports import FailedTest, JobReport, JUnitFile
from reactorcide.lib.tar import Tree, path_problem
from reactorcide.web.api.schemas import Body
from reactorcide.web.errors import validation_failed

_MAX_SIZE_BYTES = 1 << 50
_MAX_TESTS = 1_000_000_000
# More than the workers of this version send, and no more than a page can show.
_MAX_FILES = 10_000
_MAX_FAILURES = 2_000
_MAX_TEXT_CHARS = 1 << 16
_MAX_SUMMARY_CHARS = 2 << 20

BodyT = TypeVar("BodyT", bound=Body)


def _valid_path(path: str) -> str:
    problem = path_problem(path)
    if problem is not None:
        raise PydanticCustomError("path", "{problem}", {"problem": problem})
    return path


# JSON that is read without surrogates is UTF-8, as is each name of a stored artifact.
_Path = Annotated[str, AfterValidator(_valid_path)]
_Text = Annotated[str, StringConstraints(max_length=_MAX_TEXT_CHARS)]
_Tests = Annotated[int, Field(ge=0, le=_MAX_TESTS)]


class _ListedArtifact(Body):
    path: _Path
    size: int = Field(ge=0, le=_MAX_SIZE_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    is_executable: bool = False


class _Listing(Body):
    artifacts: list[_ListedArtifact]
    truncated: bool


class _JUnitFile(Body):
    path: _Path
    passed: _Tests = 0
    failed: _Tests = 0
    skipped: _Tests = 0
    problem: _Text | None = None


class _FailedTest(Body):
    file: _Path
    suite: _Text
    name: _Text
    message: _Text
    text: _Text


class _Report(Body):
    files: list[_JUnitFile] = Field(max_length=_MAX_FILES)
    failures: list[_FailedTest] = Field(max_length=_MAX_FAILURES)
    truncated: bool
    summary: str | None = Field(default=None, max_length=_MAX_SUMMARY_CHARS)


def read_listing(data: bytes, *, max_artifacts: int) -> tuple[list[Artifact], bool]:
    """Return the artifacts that a worker lists, and whether there were more. Raises ``InvalidInput``."""
    body = _read(_Listing, data)
    if len(body.artifacts) > max_artifacts:
        raise InvalidInput(
            f"artifacts: there are {len(body.artifacts)}, more than {max_artifacts} (--max-artifacts)",
            "artifacts",
        )
    tree = Tree()
    for item in body.artifacts:
        problem = tree.problem(item.path, "file")
        if problem is not None:
            raise InvalidInput(f"artifacts: {item.path[:100]!r} is refused: {problem}", "artifacts")
    return [Artifact(**item.model_dump()) for item in body.artifacts], body.truncated


def read_report(data: bytes) -> JobReport:
    """Return the report that a worker sends. Raises ``InvalidInput``."""
    body = _read(_Report, data)
    return JobReport(
        files=[JUnitFile(**item.model_dump()) for item in body.files],
        failures=[FailedTest(**item.model_dump()) for item in body.failures],
        truncated=body.truncated,
        summary=body.summary,
    )


def _read(model: type[BodyT], data: bytes) -> BodyT:
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        validation_failed(exc)
