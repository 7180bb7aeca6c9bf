"""Routes on queues."""

from flask import Response, jsonify

from reactorcide.jobs import read
from reactorcide.web.api import lists
from reactorcide.web.api.queues.schemas import QueueListResponse
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("queues", __name__, tag="jobs")


@api.get("/queues", responses={200: QueueListResponse})
def list_queues(query: NoQuery) -> Response:
    """List the queues with their numbers of waiting and running jobs."""
    queues, is_cut = read.queues(services().jobs, caller())
    return jsonify({"queues": queues} | ({lists.TRUNCATED: True} if is_cut else {}))
