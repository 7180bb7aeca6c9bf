"""SIGKILL of anything at random: services, workers, PostgreSQL, the queue; and a bucket that stops answering.

``REACTORCIDE_SOAK_MACHINES_S``, ``REACTORCIDE_SOAK_JOBS`` and ``REACTORCIDE_SOAK_SERVICES`` say for how long,
under how many jobs and with how many services, ``REACTORCIDE_SOAK_CONCURRENCY`` how many jobs each of these
runs itself, beside the workers.
"""

import os
import random
from pathlib import Path

import docker

from tests.chaos.machines import machines, survive
from tests.support.image import Images

DURATION_S = float(os.environ.get("REACTORCIDE_SOAK_MACHINES_S", "600"))
JOBS = int(os.environ.get("REACTORCIDE_SOAK_JOBS", "2000"))
SERVICES = int(os.environ.get("REACTORCIDE_SOAK_SERVICES", "1"))
CONCURRENCY = int(os.environ.get("REACTORCIDE_SOAK_CONCURRENCY", "0"))
WORKERS = 4
SETTLE_S = 600 + 2.0 * JOBS


def test_random_kills_of_machines_lose_no_job(
    tmp_path: Path, images: Images, engine: docker.APIClient
) -> None:
    seed = int(os.environ.get("REACTORCIDE_SOAK_SEED") or random.randrange(1 << 32))  # noqa: S311  # to be repeated
    print(f"seed {seed}")  # shown where the test fails
    with machines(
        tmp_path / "machines",
        images.default,
        services=SERVICES,
        workers=WORKERS,
        concurrency=CONCURRENCY,
    ) as parts:
        tally = survive(parts, engine, duration_s=DURATION_S, jobs=JOBS, seed=seed, settle_s=SETTLE_S)
    assert sum(tally.kills.values()) >= DURATION_S / 20
    assert sum(one.is_accepted for one in tally.requests) >= JOBS / 2
