"""The schemas of artifacts."""

from pydantic import Field

from reactorcide.web.api.jobs.schemas import JobPath
from reactorcide.web.api.schemas import Count, Header, Schema, Sha256


class ArtifactHeader(Header):
    """The version that the client has."""

    etag: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="The `ETag` of an earlier answer; 304 if it still matches.",
    )


class ArtifactResponse(Schema):
    """An artifact: a file that a job wrote."""

    path: str
    size: Count
    sha256: Sha256
    executable: bool = Field(description="The file has its owner's executable bit.")


class ArtifactListResponse(Schema):
    """The artifacts of a job."""

    artifacts: list[ArtifactResponse]
    artifacts_truncated: bool = Field(description="Not all files were stored; the end of the log says why.")


class JUnitFileResponse(Schema):
    """The results in one XML file among the artifacts."""

    path: str
    passed: Count
    failed: Count
    skipped: Count
    problem: str | None = Field(
        description="Why the tests of this file do not count, for example because it is not JUnit XML."
    )


class FailedTestResponse(Schema):
    """A test that failed, or could not run. Long texts are cut."""

    file: str = Field(description="The path of the artifact.")
    suite: str = Field(description="The class of the test, else the name of its suite.")
    name: str
    message: str
    text: str = Field(description="The text of the test framework, often a traceback.")


class TestsResponse(Schema):
    """The results of all JUnit XML files among a job's artifacts."""

    passed: Count
    failed: Count
    skipped: Count
    files: list[JUnitFileResponse]
    failures: list[FailedTestResponse]
    truncated: bool = Field(description="There were more failures, or more XML files, than are listed.")


class ArtifactPath(JobPath):
    """The id of a job and the path of an artifact."""

    path: str
