"""The schemas of artifacts."""

from pydantic import BaseModel, Field

from reactorcide.web.api.jobs.schemas import JobPath
from reactorcide.web.api.schemas import Count, Header, Sha256


class ArtifactHeader(Header):
    """Which version the client has."""

    etag: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="The `ETag` of an earlier answer; 304 if it is still so.",
    )


class ArtifactResponse(BaseModel):
    """A file that a job left."""

    path: str
    size: Count
    sha256: Sha256
    executable: bool = Field(description="Its owner may run it.")


class ArtifactListResponse(BaseModel):
    """The files that a job left."""

    artifacts: list[ArtifactResponse]
    artifacts_truncated: bool = Field(description="There was more than the service keeps; the log says why.")


class ArtifactPath(JobPath):
    """Which artifact of which job."""

    path: str
