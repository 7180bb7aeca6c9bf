"""SIGKILL at random moments, for ten minutes."""

import random

import docker

from tests.chaos.killer import survive
from tests.conftest import NewService

DURATION_S = 600


def test_nothing_is_lost_in_ten_minutes_of_kills(new_service: NewService, engine: docker.APIClient) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    print(f"seed {seed}")  # shown where the test fails
    tally = survive(new_service(lease=3, concurrency=3), engine, DURATION_S, seed)
    assert tally.kills >= 100
    assert tally.accepted >= 300
    assert tally.cancels >= 30
