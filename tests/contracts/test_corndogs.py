"""What every Corndogs does: the embedded one, called directly, over gRPC and over CSIL, and others.

Set ``REACTORCIDE_TEST_CORNDOGS`` to ``grpc://host:port`` or ``csil://host:port`` to check another server too:
it may hold other people's tasks, which these tests leave alone.
"""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import grpc
import pytest

from reactorcide.corndogs.connect import connect
from reactorcide.corndogs.direct import DirectCorndogs
from reactorcide.corndogs.proto import corndogs_pb2 as pb
from reactorcide.corndogs.proto.corndogs_pb2_grpc import CorndogsServiceStub
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.corndogs.task import Corndogs, Task
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable, InvalidInput
from tests.support import csil

_OTHER_SERVERS = [address for address in [os.environ.get("REACTORCIDE_TEST_CORNDOGS")] if address]
_SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCorndogs]:
    server = EmbeddedCorndogs(tmp_path_factory.mktemp("corndogs") / "corndogs.db", csil_port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["direct", "grpc", "csil", *_OTHER_SERVERS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(kind: str, embedded: EmbeddedCorndogs) -> str:
    """Where the same tasks are reached over the wire."""
    own = {
        "direct": embedded.address,
        "grpc": f"grpc://{embedded.address}",
        "csil": f"csil://{embedded.csil_address}",
    }
    return own.get(kind, kind)


@pytest.fixture
def speaks_csil(address: str) -> bool:
    return address.startswith("csil://")


@pytest.fixture
def corndogs(kind: str, address: str, embedded: EmbeddedCorndogs) -> Iterator[Corndogs]:
    opened = DirectCorndogs(embedded.storage) if kind == "direct" else connect(address)
    yield opened
    opened.close()


@pytest.fixture
def queue(corndogs: Corndogs) -> Iterator[str]:
    """A queue that no other test knows; its tasks are completed afterwards."""
    name = f"test-{uuid.uuid4()}"
    yield name
    for state, count in corndogs.task_state_counts(name).items():
        for _ in range(count):
            task = corndogs.get_next_task(name, state, override_current_state="left over")
            assert task is not None
            corndogs.complete_task(task.uuid, name, task.current_state)


class Wire(Protocol):
    """The wire itself, for what our client refuses or fills in: a call's fields in, those of its answer out.

    Fields that are not named have their defaults. Raises ``Refused``.
    """

    def __call__(self, rpc: str, **fields: Any) -> dict[str, Any]: ...


class Refused(Exception):
    """The server has refused a call, with a status of this name."""


@pytest.fixture
def wire(address: str, speaks_csil: bool) -> Iterator[Wire]:
    host_and_port = address.rpartition("://")[2]
    if speaks_csil:
        with csil.Wire(host_and_port) as opened:

            def call_csil(rpc: str, **fields: Any) -> dict[str, Any]:
                try:
                    return opened.call(rpc, **fields)
                except csil.Refused as exc:
                    raise Refused({6: "internal"}[exc.status]) from exc

            yield call_csil
        return
    with grpc.insecure_channel(host_and_port, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = CorndogsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated

        def call_grpc(rpc: str, **fields: Any) -> dict[str, Any]:
            try:
                return _fields(getattr(stub, rpc)(getattr(pb, f"{rpc}Request")(**fields)))
            except grpc.RpcError as exc:
                raise Refused(exc.code().name) from exc

        yield call_grpc


def _fields(message: Any) -> dict[str, Any]:
    """Return the fields of a protobuf message, with their defaults where they have any."""
    fields = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is None:
            fields[field.name] = value
        elif field.message_type.GetOptions().map_entry:
            fields[field.name] = {
                key: _fields(entry) if hasattr(entry, "DESCRIPTOR") else entry for key, entry in value.items()
            }
        elif message.HasField(field.name):
            fields[field.name] = _fields(value)
    return fields


def _now(corndogs: Corndogs, task: Task) -> Task:
    """The task as the server has it now."""
    stored = corndogs.get_task(task.uuid, task.queue)
    assert stored is not None
    return stored


def _without_payload(task: Task) -> Task:
    """All of a task that every server shows; its payload it is sure to show with a claim alone."""
    return replace(task, payload=b"")


def _stored_payload(corndogs: Corndogs, queue: str, state: str) -> bytes:
    claimed = corndogs.get_next_task(queue, state)
    assert claimed is not None
    return claimed.payload


class TestSubmitTask:
    def test_stores_the_sent_task(self, corndogs: Corndogs, queue: str) -> None:
        before_ns = time.time_ns()
        task = corndogs.submit_task(
            queue,
            current_state="ready",
            auto_target_state="busy",
            timeout_s=30,
            payload=b"\x00\xff{}",
            priority=-7,
        )
        assert (task.queue, task.current_state, task.auto_target_state) == (queue, "ready", "busy")
        assert (task.timeout_s, task.payload, task.priority) == (30, b"\x00\xff{}", -7)
        assert str(uuid.UUID(task.uuid)) == task.uuid
        # Nanoseconds, of a clock that may be another machine's.
        assert abs(task.submit_time_ns - before_ns) < 3600 * _SECOND_NS
        assert _without_payload(_now(corndogs, task)) == _without_payload(task)
        assert _stored_payload(corndogs, queue, "ready") == b"\x00\xff{}"

    def test_defaults(self, wire: Wire) -> None:
        task = wire("SubmitTask")["task"]
        wire("CompleteTask", uuid=task["uuid"], queue="default", current_state="submitted")
        assert (task["queue"], task["current_state"], task["auto_target_state"]) == (
            "default",
            "submitted",
            "submitted-working",
        )
        assert (task["timeout"], task.get("payload", b""), task["priority"]) == (0, b"", 0)

    def test_the_auto_target_follows_the_state(self, corndogs: Corndogs, queue: str) -> None:
        assert corndogs.submit_task(queue, current_state="ready").auto_target_state == "ready-working"

    def test_negative_timeout_means_no_timeout(self, corndogs: Corndogs, queue: str) -> None:
        assert corndogs.submit_task(queue, timeout_s=-1).timeout_s == 0

    def test_every_submit_creates_a_new_task(self, corndogs: Corndogs, queue: str) -> None:
        assert len({corndogs.submit_task(queue).uuid for _ in range(5)}) == 5

    @pytest.mark.parametrize("priority", [-(2**31), 2**31 - 1])
    def test_priority_has_32_bits(self, corndogs: Corndogs, queue: str, priority: int) -> None:
        assert _now(corndogs, corndogs.submit_task(queue, priority=priority)).priority == priority

    def test_a_large_payload(self, corndogs: Corndogs, queue: str) -> None:
        payload = os.urandom(4 * 1024 * 1024 - 200)
        assert corndogs.submit_task(queue, payload=payload).payload == payload
        assert _stored_payload(corndogs, queue, "submitted") == payload


class TestGetNextTask:
    def test_highest_priority_first_then_oldest_update(self, corndogs: Corndogs, queue: str) -> None:
        names = {
            corndogs.submit_task(queue, priority=priority).uuid: name
            for name, priority in [("a0", 0), ("b5", 5), ("c-1", -1), ("d5", 5), ("e0", 0)]
        }
        order = []
        while task := corndogs.get_next_task(queue):
            order.append(names[task.uuid])
        assert order == ["b5", "d5", "a0", "e0", "c-1"]

    def test_update_moves_a_task_to_the_back(self, corndogs: Corndogs, queue: str) -> None:
        first, second = corndogs.submit_task(queue), corndogs.submit_task(queue)
        corndogs.update_task(
            first.uuid,
            queue,
            "submitted",
            new_state="submitted",
            auto_target_state="submitted-working",
            timeout_s=0,
            priority=0,
        )
        order = [task.uuid for task in iter(lambda: corndogs.get_next_task(queue), None)]
        assert order == [second.uuid, first.uuid]

    def test_swaps_the_states(self, corndogs: Corndogs, queue: str) -> None:
        submitted = corndogs.submit_task(
            queue, auto_target_state="busy", timeout_s=9, payload=b"x", priority=3
        )
        claimed = corndogs.get_next_task(queue)
        assert claimed is not None
        assert (claimed.uuid, claimed.current_state, claimed.auto_target_state) == (
            submitted.uuid,
            "busy",
            "submitted",
        )
        assert (claimed.timeout_s, claimed.payload, claimed.priority) == (9, b"x", 3)

    def test_answers_with_the_update_time_from_before_or_after(
        self, corndogs: Corndogs, queue: str, speaks_csil: bool
    ) -> None:
        submitted = corndogs.submit_task(queue)
        claimed = corndogs.get_next_task(queue)
        assert claimed is not None
        stored = _now(corndogs, claimed)
        assert claimed.update_time_ns == (stored if speaks_csil else submitted).update_time_ns
        assert stored.update_time_ns > submitted.update_time_ns
        assert stored.submit_time_ns == submitted.submit_time_ns

    def test_stored_task_equals_the_answer(self, corndogs: Corndogs, queue: str) -> None:
        corndogs.submit_task(queue)
        claimed = corndogs.get_next_task(
            queue, override_timeout_s=60, override_current_state="a", override_auto_target_state="b"
        )
        assert claimed is not None
        assert (claimed.current_state, claimed.auto_target_state, claimed.timeout_s) == ("a", "b", 60)
        stored = _now(corndogs, claimed)
        assert (stored.current_state, stored.auto_target_state, stored.timeout_s) == ("a", "b", 60)

    @pytest.mark.parametrize(("override_s", "stored_s"), [(-1, 0), (0, 30), (60, 60)])
    def test_override_timeout(self, corndogs: Corndogs, queue: str, override_s: int, stored_s: int) -> None:
        corndogs.submit_task(queue, timeout_s=30)
        claimed = corndogs.get_next_task(queue, override_timeout_s=override_s)
        assert claimed is not None
        assert claimed.timeout_s == stored_s
        assert _now(corndogs, claimed).timeout_s == stored_s

    def test_only_this_queue_and_state(self, corndogs: Corndogs, queue: str) -> None:
        other = corndogs.submit_task(queue, current_state="other")
        assert corndogs.get_next_task(queue) is None
        assert corndogs.get_next_task(f"{queue}-2", "other") is None
        claimed = corndogs.get_next_task(queue, "other")
        assert claimed is not None
        assert claimed.uuid == other.uuid
        assert corndogs.get_next_task(queue, "other") is None

    def test_defaults(self, wire: Wire, speaks_csil: bool) -> None:
        # A priority that nothing else in a shared default queue should have.
        mine = wire("SubmitTask", priority=2**31 - 1)["task"]
        answer = wire("GetNextTask")
        claimed = answer["delivery"]["task"] if speaks_csil else answer["task"]
        assert claimed["uuid"] == mine["uuid"]
        wire("CompleteTask", uuid=mine["uuid"])

    @pytest.mark.slow
    def test_no_two_claimants_get_the_same_task(self, corndogs: Corndogs, queue: str) -> None:
        submitted = [corndogs.submit_task(queue).uuid for _ in range(200)]
        claimed: list[str] = []
        deadline = time.monotonic() + 60

        def claim() -> None:
            while len(claimed) < len(submitted) and time.monotonic() < deadline:
                if task := corndogs.get_next_task(queue):
                    claimed.append(task.uuid)

        _in_threads(8, claim)
        assert Counter(claimed) == Counter(submitted)


@pytest.mark.parametrize("kind", ["csil", *(kind for kind in _OTHER_SERVERS if kind.startswith("csil://"))])
class TestGetNextTaskGroup:
    """A call of releases after 0.3."""

    def test_highest_priority_first_then_oldest_update(
        self, corndogs: Corndogs, queue: str, wire: Wire
    ) -> None:
        others = [f"{queue}-{number}" for number in range(2)]
        submitted = [
            corndogs.submit_task(name, priority=priority, payload=str(place).encode())
            for place, name, priority in [
                (2, others[0], 0),
                (0, others[1], 5),
                (3, queue, 0),
                (1, others[0], 5),
                (4, others[1], -1),
            ]
        ]
        corndogs.submit_task(queue, current_state="other")
        for place in range(len(submitted)):
            delivery = wire("GetNextTaskGroup", queues=[*others, queue, queue])["delivery"]
            task = delivery["task"]
            assert (delivery["payload"], task["current_state"]) == (b"%d" % place, "submitted-working")
            corndogs.complete_task(task["uuid"], task["queue"], task["current_state"])
        assert wire("GetNextTaskGroup", queues=[*others, queue]) == {}

    def test_overrides(self, corndogs: Corndogs, queue: str, wire: Wire) -> None:
        task = corndogs.submit_task(queue)
        answer = wire(
            "GetNextTaskGroup",
            queues=[queue],
            override_timeout=60,
            override_current_state="a",
            override_auto_target_state="b",
        )
        claimed = answer["delivery"]["task"]
        stored = _now(corndogs, task)
        assert (stored.current_state, stored.auto_target_state, stored.timeout_s) == ("a", "b", 60)
        assert (claimed["current_state"], claimed["update_time"]) == ("a", stored.update_time_ns)

    def test_no_queues_means_the_default_queue(self, wire: Wire) -> None:
        mine = wire("SubmitTask", priority=2**31 - 1)["task"]
        assert wire("GetNextTaskGroup")["delivery"]["task"]["uuid"] == mine["uuid"]
        wire("CompleteTask", uuid=mine["uuid"])


class TestUpdateTask:
    def test_sets_exactly_the_sent_fields(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue, timeout_s=9, payload=b"old", priority=3)
        updated = corndogs.update_task(
            task.uuid,
            queue,
            "submitted",
            new_state="a",
            auto_target_state="b",
            timeout_s=60,
            priority=4,
            payload=b"new",
        )
        assert updated is not None
        assert (updated.current_state, updated.auto_target_state) == ("a", "b")
        assert (updated.timeout_s, updated.payload, updated.priority) == (60, b"new", 4)
        assert updated.update_time_ns > task.update_time_ns
        assert updated.submit_time_ns == task.submit_time_ns
        assert _without_payload(_now(corndogs, task)) == _without_payload(updated)
        assert _stored_payload(corndogs, queue, "a") == b"new"

    def test_missing_payload_leaves_the_stored_one(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue, payload=b"old")
        corndogs.update_task(
            task.uuid, queue, "submitted", new_state="a", auto_target_state="b", timeout_s=0, priority=0
        )
        assert _stored_payload(corndogs, queue, "a") == b"old"

    def test_defaults(self, corndogs: Corndogs, queue: str, wire: Wire) -> None:
        task = corndogs.submit_task(queue, timeout_s=9, payload=b"old", priority=3)
        wire("UpdateTask", uuid=task.uuid, queue=queue, current_state="submitted")
        stored = _now(corndogs, task)
        assert (stored.current_state, stored.auto_target_state) == ("updated", "updated-working")
        assert (stored.timeout_s, stored.priority) == (0, 0)
        assert _stored_payload(corndogs, queue, "updated") == b"old"

    def test_the_auto_target_follows_the_state(self, corndogs: Corndogs, queue: str, wire: Wire) -> None:
        task = corndogs.submit_task(queue)
        answer = wire("UpdateTask", uuid=task.uuid, queue=queue, current_state="submitted", new_state="ready")
        assert answer["task"]["auto_target_state"] == "ready-working"

    def test_a_stale_state_changes_nothing(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue)
        updated = corndogs.update_task(
            task.uuid, queue, "stale", new_state="a", auto_target_state="b", timeout_s=0, priority=0
        )
        assert updated is not None
        assert updated.current_state == "a"

    def test_archived_task_does_not_change(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue)
        archived = corndogs.complete_task(task.uuid, queue, "submitted")
        assert (
            corndogs.update_task(
                task.uuid, queue, "submitted", new_state="a", auto_target_state="b", timeout_s=0, priority=0
            )
            is None
        )
        assert _now(corndogs, task) == archived


def _complete(corndogs: Corndogs, task: Task, current_state: str) -> Task | None:
    return corndogs.complete_task(task.uuid, task.queue, current_state)


def _cancel(corndogs: Corndogs, task: Task, current_state: str) -> Task | None:
    return corndogs.cancel_task(task.uuid, task.queue, current_state)


@pytest.mark.parametrize(("end", "final_state"), [(_complete, "completed"), (_cancel, "canceled")])
class TestCompleteTaskAndCancelTask:
    def test_moves_the_task_to_the_archive(
        self,
        corndogs: Corndogs,
        queue: str,
        end: Callable[[Corndogs, Task, str], Task | None],
        final_state: str,
    ) -> None:
        task = corndogs.submit_task(queue, timeout_s=9, payload=b"x", priority=3)
        archived = end(corndogs, task, "submitted")
        assert archived is not None
        assert (archived.uuid, archived.queue) == (task.uuid, queue)
        assert (archived.current_state, archived.auto_target_state) == (final_state, final_state)
        assert (archived.timeout_s, archived.payload, archived.priority) == (0, b"", 0)
        assert archived.submit_time_ns == task.submit_time_ns
        assert _now(corndogs, task) == archived
        assert corndogs.get_next_task(queue) is None
        assert corndogs.get_next_task(queue, final_state) is None

    def test_a_stale_state_changes_nothing(
        self,
        corndogs: Corndogs,
        queue: str,
        end: Callable[[Corndogs, Task, str], Task | None],
        final_state: str,
    ) -> None:
        task = corndogs.submit_task(queue)
        corndogs.get_next_task(queue)
        assert end(corndogs, task, "submitted") is not None

    def test_second_call_reports_no_such_task(
        self,
        corndogs: Corndogs,
        queue: str,
        end: Callable[[Corndogs, Task, str], Task | None],
        final_state: str,
    ) -> None:
        task = corndogs.submit_task(queue)
        assert end(corndogs, task, "submitted") is not None
        assert end(corndogs, task, "submitted") is None


class TestUuid:
    def test_unknown_uuid_is_not_an_error(self, corndogs: Corndogs, queue: str) -> None:
        unknown = str(uuid.uuid4())
        assert corndogs.get_task(unknown, queue) is None
        assert (
            corndogs.update_task(
                unknown, queue, "a", new_state="b", auto_target_state="c", timeout_s=0, priority=0
            )
            is None
        )
        assert corndogs.complete_task(unknown, queue, "a") is None
        assert corndogs.cancel_task(unknown, queue, "a") is None

    @pytest.mark.parametrize("rpc", ["GetTaskStateByID", "UpdateTask", "CompleteTask", "CancelTask"])
    def test_malformed_uuid_is_an_error(self, wire: Wire, queue: str, rpc: str, speaks_csil: bool) -> None:
        # The file store of released servers has no such task, either.
        with pytest.raises(Refused, match="internal" if speaks_csil else "UNKNOWN"):
            wire(rpc, uuid="not-a-uuid", queue=queue)


class TestCleanUpTimedOut:
    def test_expired_task_swaps_its_states(self, corndogs: Corndogs, queue: str) -> None:
        corndogs.submit_task(queue)
        claimed = corndogs.get_next_task(queue, override_timeout_s=60)
        assert claimed is not None
        leased = _now(corndogs, claimed)
        end_ns = leased.update_time_ns + 60 * _SECOND_NS
        assert corndogs.clean_up_timed_out(end_ns, queue) == 0
        assert _now(corndogs, leased) == leased
        assert corndogs.clean_up_timed_out(end_ns + _SECOND_NS, queue) == 1
        back = _now(corndogs, leased)
        assert (back.current_state, back.auto_target_state) == ("submitted", "submitted-working")
        assert back.timeout_s == 0
        assert back.update_time_ns > leased.update_time_ns
        assert corndogs.clean_up_timed_out(end_ns + _SECOND_NS, queue) == 0

    def test_expired_task_moves_to_the_back_of_its_priority(self, corndogs: Corndogs, queue: str) -> None:
        first = corndogs.submit_task(queue)
        corndogs.get_next_task(queue, override_timeout_s=1)
        second = corndogs.submit_task(queue)
        assert corndogs.clean_up_timed_out(time.time_ns() + 7200 * _SECOND_NS, queue) == 1
        order = [task.uuid for task in iter(lambda: corndogs.get_next_task(queue), None)]
        assert order == [second.uuid, first.uuid]

    def test_waiting_task_expires_too(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue, timeout_s=1)
        assert corndogs.clean_up_timed_out(task.update_time_ns + 2 * _SECOND_NS, queue) == 1
        assert _now(corndogs, task).current_state == "submitted-working"

    def test_task_without_timeout_never_expires(self, corndogs: Corndogs, queue: str) -> None:
        corndogs.submit_task(queue)
        corndogs.submit_task(queue, timeout_s=-1)
        assert corndogs.clean_up_timed_out(2**63 - 1, queue) == 0

    def test_time_0_expires_no_task(self, corndogs: Corndogs, queue: str) -> None:
        corndogs.submit_task(queue, timeout_s=1)
        assert corndogs.clean_up_timed_out(0, queue) == 0

    def test_leaves_other_queues_alone(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue, timeout_s=1)
        assert corndogs.clean_up_timed_out(task.update_time_ns + 2 * _SECOND_NS, f"{queue}-2") == 0
        assert _now(corndogs, task) == task


class TestCounts:
    def test_count_live_tasks_by_queue_and_state(self, corndogs: Corndogs, queue: str) -> None:
        for _ in range(4):
            corndogs.submit_task(queue)
        corndogs.get_next_task(queue)
        done = corndogs.get_next_task(queue)
        assert done is not None
        corndogs.complete_task(done.uuid, queue, done.current_state)
        states = {"submitted": 2, "submitted-working": 1}
        assert corndogs.task_state_counts(queue) == states
        assert corndogs.queue_and_state_counts()[queue] == states
        assert corndogs.queue_task_counts()[queue] == 3
        queues = corndogs.queues()
        assert queue in queues.names
        assert queues.task_count >= 3

    def test_queue_with_archived_tasks_only_is_not_listed(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue)
        corndogs.cancel_task(task.uuid, queue, "submitted")
        assert queue not in corndogs.queues().names
        assert queue not in corndogs.queue_task_counts()
        assert queue not in corndogs.queue_and_state_counts()
        assert corndogs.task_state_counts(queue) == {}

    def test_the_messages_repeat_name_and_sum(self, corndogs: Corndogs, queue: str, wire: Wire) -> None:
        corndogs.submit_task(queue)
        corndogs.submit_task(queue, current_state="other")
        states = wire("GetTaskStateCounts", queue=queue)
        assert (states["queue"], states["count"]) == (queue, 2)
        of_all = wire("GetQueueAndStateCounts")["queue_and_state_counts"][queue]
        assert (of_all["queue"], of_all["count"]) == (queue, 2)

    def test_state_counts_have_no_default_queue(self, wire: Wire) -> None:
        task = wire("SubmitTask")["task"]
        counts = wire("GetTaskStateCounts")
        wire("CompleteTask", uuid=task["uuid"])
        assert (counts["queue"], counts["count"]) == ("", 0)


def test_health_is_serving(corndogs: Corndogs) -> None:
    corndogs.check_health()


class TestWhatCannotBe:
    """What no server takes is refused with the same error, whichever way it would go."""

    @pytest.mark.parametrize("uuid_", ["", "1", "not-a-uuid", "0B6D6C1E-7A0C-4A55-9F43-2F6A1F0F3C11"])
    def test_non_canonical_uuid_is_refused(self, corndogs: Corndogs, queue: str, uuid_: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: corndogs.get_task(uuid_, queue),
            lambda: corndogs.complete_task(uuid_, queue, "a"),
            lambda: corndogs.cancel_task(uuid_, queue, "a"),
            lambda: corndogs.update_task(
                uuid_, queue, "a", new_state="b", auto_target_state="c", timeout_s=0, priority=0
            ),
        ]
        for call in calls:
            with pytest.raises(InvalidInput):
                call()

    def test_priority_beyond_32_bits_is_refused(self, corndogs: Corndogs, queue: str) -> None:
        task = corndogs.submit_task(queue)
        for priority in (-(2**31) - 1, 2**31):
            with pytest.raises(CorndogsError) as caught:
                corndogs.submit_task(queue, priority=priority)
            assert not isinstance(caught.value, CorndogsUnavailable)
            with pytest.raises(CorndogsError):
                corndogs.update_task(
                    task.uuid,
                    queue,
                    "submitted",
                    new_state="a",
                    auto_target_state="b",
                    timeout_s=0,
                    priority=priority,
                )
        assert _now(corndogs, task) == task

    def test_message_above_4_mib_is_refused(self, corndogs: Corndogs, queue: str) -> None:
        with pytest.raises(CorndogsError, match="SubmitTask"):
            corndogs.submit_task(queue, payload=b"x" * (4 << 20))
        with pytest.raises(CorndogsError, match="GetNextTask"):
            corndogs.get_next_task(queue, "x" * (4 << 20))
        assert corndogs.task_state_counts(queue) == {}

    def test_values_that_do_not_fit_a_message_are_refused(self, corndogs: Corndogs, queue: str) -> None:
        with pytest.raises(ValueError, match="surrogate"):
            corndogs.submit_task(queue, current_state="\ud800")
        with pytest.raises(ValueError, match=str(2**63)):
            corndogs.submit_task(queue, timeout_s=2**63)
        assert corndogs.task_state_counts(queue) == {}

    def test_mutable_payload_is_refused(self, corndogs: Corndogs, queue: str) -> None:
        with pytest.raises(TypeError):
            corndogs.submit_task(queue, payload=bytearray(b"x"))  # type: ignore[arg-type]  # that is the test
        assert corndogs.task_state_counts(queue) == {}

    def test_an_empty_queue_and_an_empty_state_are_the_defaults(self, corndogs: Corndogs, wire: Wire) -> None:
        task = corndogs.submit_task("", current_state="")
        wire("CompleteTask", uuid=task.uuid, queue="default", current_state="submitted")
        assert (task.queue, task.current_state, task.auto_target_state) == (
            "default",
            "submitted",
            "submitted-working",
        )

    def test_calls_after_close_are_refused(self, kind: str, address: str, embedded: EmbeddedCorndogs) -> None:
        opened = DirectCorndogs(embedded.storage) if kind == "direct" else connect(address)
        opened.close()
        opened.close()
        with pytest.raises(CorndogsUnavailable, match="closed"):
            opened.submit_task("q")


def _in_threads(count: int, body: Callable[[], None]) -> None:
    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
