"""The schemas of workers."""

from pydantic import BaseModel, Field

from reactorcide.web.api.schemas import Count, Id, Time


class WorkerResponse(BaseModel):
    """A worker, with those of its running jobs that the caller may see."""

    worker_id: str
    host: str
    concurrency: Count
    running_jobs: list[Id]
    warm_containers: Count = Field(description="Containers that have started and wait for its next jobs.")
    last_seen_at: Time


class WorkerListResponse(BaseModel):
    """The workers."""

    workers: list[WorkerResponse]
