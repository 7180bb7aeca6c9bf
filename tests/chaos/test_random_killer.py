"""SIGKILL at random moments, and every job accounted for."""

import random

import docker
import pytest

from tests.chaos.killer import account_for, rampage
from tests.conftest import NewService


@pytest.mark.timeout(300)
def test_nothing_is_lost_whenever_the_service_is_killed(
    new_service: NewService, engine: docker.APIClient
) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    print(f"seed {seed}")  # shown where the test fails
    service = new_service(lease=3, concurrency=3)
    tally = rampage(service, 20, seed)
    account_for(service, engine, tally)
    print(tally)  # the figures
    assert tally.kills >= 3
    assert len(tally.submitted) >= 5
