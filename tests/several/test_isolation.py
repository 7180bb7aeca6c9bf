"""The suite of ``integration/test_isolation.py`` over two services: what one has stored, the other guards.

Ann asks the first service, and all others, with a token or without, ask the second. Nobody's attempts share
one Ann here, and the scopes of tokens are left out: ``soak/test_isolation.py`` has all of it as it is.
"""

from collections.abc import Iterator

import docker
import pytest

from reactorcide.domain.accounts import Role
from tests.conftest import ended_cleanly
from tests.integration.test_isolation import *  # noqa: F403  # its tests and fixtures, with each new one
from tests.integration.test_isolation import ANN, EXPECTED, Ann
from tests.integration.test_isolation import (
    test_missing_token_is_refused_except_on_public_routes as is_refused_without_a_token,
)
from tests.several.conftest import House
from tests.support.client import Client
from tests.support.image import Images
from tests.support.s3 import S3Server
from tests.support.service import Service


class SecondService(Service):
    """The service that all users have but Ann, whose requests go to the first one."""

    first: Service

    def add_user(self, name: str, role: Role = Role.USER) -> Client:
        """Make a user, who asks the first service if the name is Ann's."""
        return self.first.add_user(name, role) if name.startswith(ANN) else super().add_user(name, role)


@pytest.fixture(scope="module")
def idle_service(
    tmp_path_factory: pytest.TempPathFactory,
    engine: docker.APIClient,
    images: Images,
    s3: S3Server,
    corndogs: str,
) -> Iterator[Service]:
    """Two services that run no jobs, which the tests take for one."""
    house = House(tmp_path_factory.mktemp("isolation"), images.default, s3, corndogs)
    first = house.service(concurrency=0)
    for _ in ended_cleanly(first.start(), engine):
        second = house.service(SecondService, concurrency=0, source_root=first.source_root)
        assert isinstance(second, SecondService)
        second.first = first
        yield from ended_cleanly(second.start(), engine)


# An Ann for each of their routes would take minutes.
del test_missing_token_is_refused_except_on_public_routes  # noqa: F821  # from above
del test_token_needs_exactly_the_listed_scopes  # noqa: F821  # as above


def test_missing_token_is_refused(idle_service: Service, ann: Ann) -> None:
    for route in EXPECTED:
        is_refused_without_a_token(idle_service, ann, route)
