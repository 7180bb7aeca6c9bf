"""All crash points over PostgreSQL and S3: the tests of ``chaos`` that kill a service at one of them."""

import pytest

from tests.chaos.test_crash_points import *  # noqa: F403  # the tests themselves, with each new one
from tests.chaos.test_deliveries import *  # noqa: F403  # as above
from tests.chaos.test_outbox import *  # noqa: F403  # as above
from tests.chaos.test_runs import *  # noqa: F403  # as above
from tests.chaos.test_schedules import *  # noqa: F403  # as above
from tests.conftest import Storage, storage_on_servers
from tests.support.s3 import S3Server


@pytest.fixture
def storage(s3: S3Server) -> Storage:
    """A new database and a new bucket."""
    return storage_on_servers(s3)
