"""Two thousand hostile clients at one address for a minute hardly slow another client."""

from tests.conftest import NewService
from tests.support.siege import besiege


def test_two_thousand_hostile_clients_do_not_slow_others(new_service: NewService) -> None:
    service = new_service(log_format="json", bad_tokens=10)
    besiege(service, sockets=2000, seconds=60, largest_p99_s=0.25)
