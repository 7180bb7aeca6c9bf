"""The schemas of workers."""

from pydantic import BaseModel

from reactorcide.web.api.schemas import Count, Id, Time


class WorkerResponse(BaseModel):
    """A worker, with those of its running jobs that the caller may see."""

    worker_id: str
    host: str
    concurrency: Count
    running_jobs: list[Id]
    last_seen_at: Time


class WorkerListResponse(BaseModel):
    """The workers."""

    workers: list[WorkerResponse]
