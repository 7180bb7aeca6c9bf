"""Conversion of tasks to protobuf messages and back."""

from reactorcide.corndogs.proto import corndogs_pb2 as pb
from reactorcide.corndogs.task import Task

SERVICE_NAME = "corndogs.v1alpha1.CorndogsService"


def task_to_message(task: Task | None) -> pb.Task | None:
    """Return the message of a task; None, an unset field in protobuf, for None."""
    if task is None:
        return None
    return pb.Task(
        uuid=task.uuid,
        queue=task.queue,
        current_state=task.current_state,
        auto_target_state=task.auto_target_state,
        submit_time=task.submit_time_ns,
        update_time=task.update_time_ns,
        timeout=task.timeout_s,
        payload=task.payload,
        priority=task.priority,
    )


def task_from_message(message: pb.Task) -> Task:
    """Return the task in a message."""
    return Task(
        uuid=message.uuid,
        queue=message.queue,
        current_state=message.current_state,
        auto_target_state=message.auto_target_state,
        submit_time_ns=message.submit_time,
        update_time_ns=message.update_time,
        timeout_s=message.timeout,
        payload=message.payload,
        priority=message.priority,
    )
