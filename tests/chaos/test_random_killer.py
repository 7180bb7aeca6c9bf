"""SIGKILL at random moments, and every job accounted for."""

import random

import docker
import pytest

from tests.chaos.killer import survive
from tests.conftest import NewService


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_kills_lose_no_job(new_service: NewService, engine: docker.APIClient) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    print(f"seed {seed}")  # shown where the test fails
    tally = survive(new_service(lease=3, concurrency=3, warm=2), engine, 20, seed)
    assert tally.kills >= 3
    assert tally.accepted >= 5
    assert tally.cancels >= 1
    assert tally.runs
