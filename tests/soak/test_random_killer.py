"""SIGKILL at random moments, for an hour, on a machine that is busy."""

import os
import random

import docker

from tests.chaos.killer import survive
from tests.conftest import NewService

DURATION_S = float(os.environ.get("REACTORCIDE_SOAK_S", "3600"))
BURNERS = 3


def test_hour_of_random_kills_loses_no_job(new_service: NewService, engine: docker.APIClient) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    print(f"seed {seed}")  # shown where the test fails
    service = new_service(lease=3, concurrency=3)
    tally = survive(service, engine, DURATION_S, seed, burners=BURNERS)
    assert tally.kills >= DURATION_S / 20
    assert tally.accepted >= DURATION_S / 10
    assert tally.cancels >= DURATION_S / 100
    assert len(tally.runs) >= DURATION_S / 60
