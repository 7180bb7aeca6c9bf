"""Some crash points over PostgreSQL and S3; ``soak/test_crash_points.py`` has all of them."""

from pathlib import Path

import docker
import pytest

from tests.chaos import test_crash_points, test_runs
from tests.conftest import NewService, Storage, storage_on_servers
from tests.support.s3 import S3Server


@pytest.fixture
def storage(s3: S3Server) -> Storage:
    """A new database and a new bucket."""
    return storage_on_servers(s3)


@pytest.mark.parametrize("point", ["log-rows-sealed"])
def test_job_survives_a_kill(
    point: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    test_crash_points.test_job_survives_a_kill_at_each_crash_point(point, new_service, engine, tmp_path)


def test_run_survives_a_kill(new_service: NewService, engine: docker.APIClient, tmp_path: Path) -> None:
    point = "dependents-committed"
    test_runs.test_run_survives_a_kill_at_each_crash_point(point, new_service, engine, tmp_path)
