"""Without any hint, a waiting client notices a change within about a second."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from reactorcide.domain.jobs import Job
from reactorcide.jobs import events, logs, read
from reactorcide.lib.notifier import LocalNotifier
from tests.worker.conftest import USER, House

_DEADLINE_S = 20.0
"""Less than what each of them would wait for otherwise, on a loaded machine too."""


class SilentNotifier(LocalNotifier):
    """Loses every hint."""

    def __init__(self) -> None:
        super().__init__()
        self.is_watched = threading.Event()

    @contextmanager
    def watching(self, *keys: str) -> Iterator[threading.Event]:
        """See ``Notifier.watching``."""
        with super().watching(*keys) as event:
            self.is_watched.set()
            yield event

    def announce(self, key: str) -> None:
        """See ``Notifier.announce``."""


@pytest.fixture
def job(house: House) -> Job:
    """A job that waits, while nobody hears of what happens to it."""
    house.context = replace(house.context, notifier=SilentNotifier())
    return house.submit("print printed; exit 0")


def while_it_runs(house: House, wait: Callable[[], Any]) -> Any:
    """Return what ``wait`` returns, which is called before the job runs."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(wait()), daemon=True)
    thread.start()
    notifier = house.context.notifier
    assert isinstance(notifier, SilentNotifier)
    assert notifier.is_watched.wait(_DEADLINE_S)
    house.worker()
    thread.join(_DEADLINE_S)
    [result] = results
    return result


def test_a_long_poll(house: House, job: Job) -> None:
    def wait() -> str:
        return read.wait_for_change(house.context, USER, job.job_id, timeout_s=300).status

    assert while_it_runs(house, wait) != job.status


def test_a_stream_of_status_changes(house: House, job: Job) -> None:
    def wait() -> list[str]:
        statuses: list[str] = []
        for event in events.follow(house.context, USER, events.last_id(house.context)):
            if event is not None:
                statuses.append(event.status_to)
                if statuses[-1] == "completed":
                    break
        return statuses

    assert while_it_runs(house, wait) == ["running", "completed"]


def test_a_follower_of_a_log(house: House, job: Job) -> None:
    def wait() -> bytes:
        part = logs.LogPart()
        return b"".join(logs.follow(house.context, job, part, logs.start_of(house.context, job, part, None)))

    assert while_it_runs(house, wait) == b"printed\n"
