from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(_message.Message):
    __slots__ = ("uuid", "queue", "current_state", "auto_target_state", "submit_time", "update_time", "timeout", "payload", "priority")
    UUID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    AUTO_TARGET_STATE_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    queue: str
    current_state: str
    auto_target_state: str
    submit_time: int
    update_time: int
    timeout: int
    payload: bytes
    priority: int
    def __init__(self, uuid: _Optional[str] = ..., queue: _Optional[str] = ..., current_state: _Optional[str] = ..., auto_target_state: _Optional[str] = ..., submit_time: _Optional[int] = ..., update_time: _Optional[int] = ..., timeout: _Optional[int] = ..., payload: _Optional[bytes] = ..., priority: _Optional[int] = ...) -> None: ...

class SubmitTaskRequest(_message.Message):
    __slots__ = ("queue", "current_state", "auto_target_state", "timeout", "payload", "priority")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    AUTO_TARGET_STATE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    queue: str
    current_state: str
    auto_target_state: str
    timeout: int
    payload: bytes
    priority: int
    def __init__(self, queue: _Optional[str] = ..., current_state: _Optional[str] = ..., auto_target_state: _Optional[str] = ..., timeout: _Optional[int] = ..., payload: _Optional[bytes] = ..., priority: _Optional[int] = ...) -> None: ...

class SubmitTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class GetTaskStateByIDRequest(_message.Message):
    __slots__ = ("uuid", "queue")
    UUID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    queue: str
    def __init__(self, uuid: _Optional[str] = ..., queue: _Optional[str] = ...) -> None: ...

class GetTaskStateByIDResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class GetNextTaskRequest(_message.Message):
    __slots__ = ("queue", "current_state", "override_timeout", "override_current_state", "override_auto_target_state")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_AUTO_TARGET_STATE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    current_state: str
    override_timeout: int
    override_current_state: str
    override_auto_target_state: str
    def __init__(self, queue: _Optional[str] = ..., current_state: _Optional[str] = ..., override_timeout: _Optional[int] = ..., override_current_state: _Optional[str] = ..., override_auto_target_state: _Optional[str] = ...) -> None: ...

class GetNextTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class UpdateTaskRequest(_message.Message):
    __slots__ = ("uuid", "queue", "current_state", "auto_target_state", "timeout", "new_state", "payload", "priority")
    UUID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    AUTO_TARGET_STATE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    NEW_STATE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    queue: str
    current_state: str
    auto_target_state: str
    timeout: int
    new_state: str
    payload: bytes
    priority: int
    def __init__(self, uuid: _Optional[str] = ..., queue: _Optional[str] = ..., current_state: _Optional[str] = ..., auto_target_state: _Optional[str] = ..., timeout: _Optional[int] = ..., new_state: _Optional[str] = ..., payload: _Optional[bytes] = ..., priority: _Optional[int] = ...) -> None: ...

class UpdateTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class CompleteTaskRequest(_message.Message):
    __slots__ = ("uuid", "queue", "current_state")
    UUID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    queue: str
    current_state: str
    def __init__(self, uuid: _Optional[str] = ..., queue: _Optional[str] = ..., current_state: _Optional[str] = ...) -> None: ...

class CompleteTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class CancelTaskRequest(_message.Message):
    __slots__ = ("uuid", "queue", "current_state")
    UUID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_STATE_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    queue: str
    current_state: str
    def __init__(self, uuid: _Optional[str] = ..., queue: _Optional[str] = ..., current_state: _Optional[str] = ...) -> None: ...

class CancelTaskResponse(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class CleanUpTimedOutRequest(_message.Message):
    __slots__ = ("at_time", "queue")
    AT_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    at_time: int
    queue: str
    def __init__(self, at_time: _Optional[int] = ..., queue: _Optional[str] = ...) -> None: ...

class CleanUpTimedOutResponse(_message.Message):
    __slots__ = ("timed_out",)
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    timed_out: int
    def __init__(self, timed_out: _Optional[int] = ...) -> None: ...

class GetQueuesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQueuesResponse(_message.Message):
    __slots__ = ("queues", "total_task_count")
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    queues: _containers.RepeatedScalarFieldContainer[str]
    total_task_count: int
    def __init__(self, queues: _Optional[_Iterable[str]] = ..., total_task_count: _Optional[int] = ...) -> None: ...

class GetQueueTaskCountsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQueueTaskCountsResponse(_message.Message):
    __slots__ = ("queue_counts", "total_task_count")
    class QueueCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    QUEUE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    queue_counts: _containers.ScalarMap[str, int]
    total_task_count: int
    def __init__(self, queue_counts: _Optional[_Mapping[str, int]] = ..., total_task_count: _Optional[int] = ...) -> None: ...

class GetTaskStateCountsRequest(_message.Message):
    __slots__ = ("queue",)
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class GetTaskStateCountsResponse(_message.Message):
    __slots__ = ("queue", "count", "state_counts")
    class StateCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STATE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    count: int
    state_counts: _containers.ScalarMap[str, int]
    def __init__(self, queue: _Optional[str] = ..., count: _Optional[int] = ..., state_counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class GetQueueAndStateCountsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetQueueAndStateCountsResponse(_message.Message):
    __slots__ = ("queue_and_state_counts",)
    class QueueAndStateCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: QueueAndStateCounts
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[QueueAndStateCounts, _Mapping]] = ...) -> None: ...
    QUEUE_AND_STATE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    queue_and_state_counts: _containers.MessageMap[str, QueueAndStateCounts]
    def __init__(self, queue_and_state_counts: _Optional[_Mapping[str, QueueAndStateCounts]] = ...) -> None: ...

class QueueAndStateCounts(_message.Message):
    __slots__ = ("queue", "count", "state_counts")
    class StateCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STATE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    queue: str
    count: int
    state_counts: _containers.ScalarMap[str, int]
    def __init__(self, queue: _Optional[str] = ..., count: _Optional[int] = ..., state_counts: _Optional[_Mapping[str, int]] = ...) -> None: ...
