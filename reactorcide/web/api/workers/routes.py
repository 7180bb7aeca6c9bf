"""Routes on workers."""

from flask import Response, jsonify

from reactorcide.jobs import read
from reactorcide.lib.clock import rfc3339
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import NoQuery
from reactorcide.web.api.workers.schemas import WorkerListResponse
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("workers", __name__, tag="service")


@api.get("/workers", responses={200: WorkerListResponse})
def list_workers(query: NoQuery) -> Response:
    """List the workers and the jobs that they run."""
    return jsonify(
        {
            "workers": [
                {
                    "worker_id": view.worker_id,
                    "host": view.host,
                    "concurrency": view.concurrency,
                    "running_jobs": read.visible(services().jobs, caller(), view.running_job_ids),
                    "warm_containers": view.warm_containers,
                    "last_seen_at": rfc3339(view.last_seen_ms),
                }
                for view in services().workers()
            ]
        }
    )
