"""A thousand deliveries while the service is killed at random."""

import os
import random
from pathlib import Path

from tests.chaos.test_deliveries import survive
from tests.conftest import NewService
from tests.support.forge import running_forge

DELIVERIES = int(os.environ.get("REACTORCIDE_SOAK_DELIVERIES", "1000"))


def test_thousand_deliveries_under_random_kills(new_service: NewService, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    print(f"seed {seed}")  # shown where the test fails
    service = new_service(lease=3, concurrency=3, allow_address="127.0.0.1/32")
    with running_forge(tmp_path / "forge", "github") as forge:
        survive(service, forge, DELIVERIES, seed)
