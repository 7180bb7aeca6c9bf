"""The schemas of artifacts."""

from pydantic import BaseModel, Field

from reactorcide.web.api.jobs.schemas import JobPath
from reactorcide.web.api.schemas import Count, Header, Sha256


class ArtifactHeader(Header):
    """The version that the client has."""

    etag: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="The `ETag` of an earlier answer; 304 if it still matches.",
    )


class ArtifactResponse(BaseModel):
    """An artifact: a file that a job wrote."""

    path: str
    size: Count
    sha256: Sha256
    executable: bool = Field(description="The file has its owner's executable bit.")


class ArtifactListResponse(BaseModel):
    """The artifacts of a job."""

    artifacts: list[ArtifactResponse]
    artifacts_truncated: bool = Field(description="Not all files were kept; the end of the log says why.")


class ArtifactPath(JobPath):
    """The id of a job and the path of an artifact."""

    path: str
