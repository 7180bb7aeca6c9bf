"""The messages inside the envelopes: which fields each request has, and tasks as maps."""

from typing import Any

from reactorcide.corndogs.csil.cbor import Malformed
from reactorcide.corndogs.task import Task

Fields = dict[str, type]

_BY_ID: Fields = {"uuid": str, "queue": str, "current_state": str}
_CLAIM: Fields = {
    "current_state": str,
    "override_timeout": int,
    "override_current_state": str,
    "override_auto_target_state": str,
}
REQUESTS: dict[str, Fields] = {
    "SubmitTask": {
        "queue": str,
        "current_state": str,
        "auto_target_state": str,
        "timeout": int,
        "payload": bytes,
        "priority": int,
    },
    "GetTaskStateByID": {"uuid": str, "queue": str},
    "GetNextTask": {"queue": str, **_CLAIM},
    "GetNextTaskGroup": {"queues": list, **_CLAIM},
    # Its payload is optional.
    "UpdateTask": {
        **_BY_ID,
        "auto_target_state": str,
        "timeout": int,
        "new_state": str,
        "priority": int,
    },
    "CompleteTask": _BY_ID,
    "CancelTask": _BY_ID,
    "CleanUpTimedOut": {"at_time": int, "queue": str},
    "GetQueues": {},
    "GetQueueTaskCounts": {},
    "GetTaskStateCounts": {"queue": str},
    "GetQueueAndStateCounts": {},
}
"""The required fields of each operation's request."""

_TASK: Fields = {
    "uuid": str,
    "queue": str,
    "current_state": str,
    "auto_target_state": str,
    "submit_time": int,
    "update_time": int,
    "timeout": int,
    "priority": int,
}


def checked(message: object, fields: Fields) -> dict[str, Any]:
    """Return a message that is a map with these fields, and perhaps others. Raises ``Malformed``."""
    if not isinstance(message, dict):
        raise Malformed("csil cbor: the message is not a map")
    for name, kind in fields.items():
        if name not in message:
            raise Malformed(f'csil cbor: missing field "{name}"')
        value = message[name]
        is_too_large = isinstance(value, int) and not -(2**63) <= value < 2**63
        # Not isinstance: true and false are integers in Python.
        if type(value) is not kind or is_too_large:
            raise Malformed(f'csil cbor: field "{name}" is no {kind.__name__}')
    return message


def task_from_map(message: object, payload: bytes = b"") -> Task:
    """Return the task in a message, which has no payload. Raises ``Malformed``."""
    task = checked(message, _TASK)
    return Task(
        uuid=task["uuid"],
        queue=task["queue"],
        current_state=task["current_state"],
        auto_target_state=task["auto_target_state"],
        submit_time_ns=task["submit_time"],
        update_time_ns=task["update_time"],
        timeout_s=task["timeout"],
        payload=payload,
        priority=task["priority"],
    )


def task_to_map(task: Task) -> dict[str, object]:
    """Return a task for a client of 0.7.1, without its payload."""
    return {
        "uuid": task.uuid,
        "queue": task.queue,
        "current_state": task.current_state,
        "auto_target_state": task.auto_target_state,
        "submit_time": task.submit_time_ns,
        "update_time": task.update_time_ns,
        "timeout": task.timeout_s,
        "priority": task.priority,
    }
