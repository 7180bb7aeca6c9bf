"""The answers of the embedded server: a request's envelope in, a response's frame out."""

from collections.abc import Callable
from typing import Any

from reactorcide.corndogs.calls import Refused, TaskCalls, answered
from reactorcide.corndogs.csil.cbor import Malformed, decode, encode
from reactorcide.corndogs.csil.envelope import (
    INTERNAL,
    MALFORMED,
    SERVICE,
    UNAVAILABLE,
    UNKNOWN_OPERATION,
    Request,
    Response,
    decode_request,
    encode_response,
)
from reactorcide.corndogs.csil.messages import REQUESTS, checked, task_to_map
from reactorcide.corndogs.task import DEFAULT_QUEUE, MAX_MESSAGE_BYTES, Task

# A group claim has one for each of its queues, and each costs a look into the database.
_MAX_ITEMS = 4096
_MAX_ECHOED = 200
_CONTROL = {"$ping": "$pong", "$hello": "$hello-ack"}


class Responder:
    """Answers clients of 0.7.0 and of 0.7.1 and later alike. Thread-safe.

    Nothing tells the two apart, so answers have what either reads: the payload in every task for the former,
    the delivery of a claim for the latter. For the same reason an UpdateTask with an empty payload leaves the
    stored one, as 0.7.0 does; 0.7.1 would erase it.
    """

    def __init__(self, calls: TaskCalls) -> None:
        self._calls = calls
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, object]]] = {
            "SubmitTask": self._submit,
            "GetTaskStateByID": lambda fields: _of(calls.find(fields["uuid"])),
            "GetNextTask": lambda fields: self._claim([fields["queue"] or DEFAULT_QUEUE], fields),
            "GetNextTaskGroup": self._claim_of_group,
            "UpdateTask": self._update,
            "CompleteTask": lambda fields: _of(calls.complete(fields["uuid"])),
            "CancelTask": lambda fields: _of(calls.cancel(fields["uuid"])),
            "CleanUpTimedOut": lambda fields: {
                "timed_out": calls.clean_up(fields["at_time"], fields["queue"])
            },
            "GetQueues": lambda _: self._queues(),
            "GetQueueTaskCounts": lambda _: self._queue_counts(),
            "GetTaskStateCounts": lambda fields: _state_counts(
                fields["queue"], calls.state_counts(fields["queue"])
            ),
            "GetQueueAndStateCounts": lambda _: {
                "queue_and_state_counts": {
                    queue: _state_counts(queue, states) for queue, states in calls.counts().items()
                }
            },
        }

    def respond(self, envelope: bytes) -> bytes:
        """Return the frame that answers this envelope. Raises nothing."""
        try:
            request = decode_request(envelope)
        except Malformed as exc:
            return encode_response(Response(None, MALFORMED, error=str(exc)))
        if request.operation in _CONTROL:
            return encode_response(Response(request.id, variant=_CONTROL[request.operation]))
        problem = ""
        if request.service != SERVICE:
            problem = f"unknown service: {request.service[:_MAX_ECHOED]}"
        elif request.operation not in self._operations:
            problem = f"unknown op: {request.operation[:_MAX_ECHOED]}"
        if problem:
            return encode_response(Response(request.id, UNKNOWN_OPERATION, error=problem))
        return encode_response(self._response(request))

    def _response(self, request: Request) -> Response:
        def call() -> bytes:
            if len(request.payload) > MAX_MESSAGE_BYTES:
                raise Refused(
                    "RESOURCE_EXHAUSTED",
                    f"payload is {len(request.payload)} bytes; maximum is {MAX_MESSAGE_BYTES} bytes",
                )
            try:
                message = decode(request.payload, _MAX_ITEMS)
                # Any item stands for a request without fields.
                fields = REQUESTS[request.operation]
                return encode(self._operations[request.operation](checked(message, fields) if fields else {}))
            except Malformed as exc:
                raise Refused("INVALID_ARGUMENT", str(exc)) from exc

        try:
            payload = answered(request.operation, call)
        except Refused as exc:
            status = UNAVAILABLE if exc.status == "UNAVAILABLE" else INTERNAL
            return Response(request.id, status, error=str(exc))
        return Response(request.id, payload=payload, variant=f"{request.operation}Response")

    def _submit(self, fields: dict[str, Any]) -> dict[str, object]:
        return _of(
            self._calls.submit(
                fields["queue"],
                fields["current_state"],
                fields["auto_target_state"],
                fields["timeout"],
                fields["payload"],
                fields["priority"],
            )
        )

    def _update(self, fields: dict[str, Any]) -> dict[str, object]:
        payload = fields.get("payload", b"")
        if not isinstance(payload, bytes):
            raise Malformed('csil cbor: field "payload" is not bytes')
        return _of(
            self._calls.update(
                fields["uuid"],
                fields["new_state"],
                fields["auto_target_state"],
                fields["timeout"],
                payload,
                fields["priority"],
            )
        )

    def _claim_of_group(self, fields: dict[str, Any]) -> dict[str, object]:
        if not all(type(queue) is str for queue in fields["queues"]):
            raise Malformed('csil cbor: field "queues" is not a list of text')
        return self._claim(fields["queues"] or [DEFAULT_QUEUE], fields)

    def _claim(self, queues: list[str], fields: dict[str, Any]) -> dict[str, object]:
        task = self._calls.claim_of_group(
            queues,
            fields["current_state"],
            fields["override_timeout"],
            fields["override_current_state"],
            fields["override_auto_target_state"],
        )
        if task is None:
            return {}
        return {**_of(task), "delivery": {"task": task_to_map(task), "payload": task.payload}}

    def _queues(self) -> dict[str, object]:
        counts = self._calls.queue_counts()
        return {"queues": list(counts), "total_task_count": sum(counts.values())}

    def _queue_counts(self) -> dict[str, object]:
        counts = self._calls.queue_counts()
        return {"queue_counts": counts, "total_task_count": sum(counts.values())}


def _of(task: Task | None) -> dict[str, object]:
    return {} if task is None else {"task": {**task_to_map(task), "payload": task.payload}}


def _state_counts(queue: str, states: dict[str, int]) -> dict[str, object]:
    return {"queue": queue, "count": sum(states.values()), "state_counts": states}
