"""The whole suite of ``integration/test_isolation.py`` over two services on PostgreSQL and S3."""

from tests.integration.test_isolation import *  # noqa: F403  # its tests and fixtures, with each new one
from tests.several.conftest import corndogs  # noqa: F401  # a fixture
from tests.several.test_isolation import idle_service  # noqa: F401  # a fixture
