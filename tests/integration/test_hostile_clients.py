"""Hostile clients of every kind at one address; ``tests/soak`` has more of them, for longer."""

from tests.conftest import NewService
from tests.support.siege import besiege


def test_hostile_clients_do_not_slow_other_clients(new_service: NewService) -> None:
    # The tests share the machine, so that more time is allowed than is promised.
    besiege(new_service(log_format="json"), sockets=400, seconds=6, largest_p99_s=1)
