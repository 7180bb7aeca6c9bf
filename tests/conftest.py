"""Fixtures of the tests that need a Docker Engine or a running service; none is autouse."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import docker
import docker.errors
import pytest
from docker.utils import kwargs_from_env
from hypothesis import HealthCheck, settings

from tests.support.client import Client
from tests.support.image import Images, build_images
from tests.support.registry import Registry
from tests.support.service import Service
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.s3 import S3Server


def pytest_configure() -> None:
    """Start from the same on every machine."""
    # A shell has its background jobs ignore Ctrl-C, and nohup a closed terminal; what they start does, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.umask(0o022)
    # How long an example takes depends on what else this machine does.
    settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("default")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    """The S3 server, which starts with the first test that needs it."""
    # Imported late: most tests do without boto3.
    from tests.support import s3 as support

    with support.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.APIClient]:
    """The engine that the tests look at containers with."""
    client = docker.APIClient(**kwargs_from_env(), version="auto", timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine: docker.APIClient) -> Images:
    """The images that jobs run in."""
    return build_images(engine)


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """The service that most tests share; they leave nothing running on it."""
    shared = Service(
        tmp_path_factory.mktemp("shared"),
        images.default,
        concurrency=4,
        cancel_grace=1,
        prepare_timeout=20,
        log_format="json",
    )
    yield from ended_cleanly(shared.start(), engine)


@pytest.fixture
def api(service: Service) -> Client:
    """The shared service, as its admin sees it."""
    return service.admin


@dataclass(frozen=True)
class Storage:
    """Where a service keeps what is not in its data directory: by variables and options."""

    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)


def storage_on_servers(s3: "S3Server") -> Storage:
    """Return a new database of PostgreSQL and a new bucket."""
    # Imported late: most tests do without psycopg.
    from tests.support.postgresql import cluster

    environment = s3.environment() | {"REACTORCIDE_DATABASE": cluster().new_url()}
    return Storage(environment, {"objects": f"s3://{s3.new_bucket()}/ci"})


@pytest.fixture
def storage() -> Storage:
    """Where the services of ``new_service`` keep their data; some modules have it in PostgreSQL and S3."""
    return Storage()


class NewService(Protocol):
    """Creates and starts a service for one test."""

    def __call__(self, environment: Mapping[str, str] | None = None, **options: object) -> Service: ...


@pytest.fixture
def new_service(
    tmp_path: Path, engine: docker.APIClient, images: Images, storage: Storage
) -> Iterator[NewService]:
    """A factory of services that end with the test."""
    numbers = itertools.count(1)
    ends: list[Iterator[Service]] = []

    def make(environment: Mapping[str, str] | None = None, **options: object) -> Service:
        options = {"concurrency": 1, "cancel_grace": 1} | dict(storage.options) | options
        environment = dict(storage.environment) | dict(environment or {})
        service = Service(tmp_path / f"service-{next(numbers)}", images.default, environment, **options)
        ends.append(ended_cleanly(service.start(), engine))
        return next(ends[-1])

    yield make
    for end in ends:
        assert next(end, None) is None


@pytest.fixture
def new_registry(images: Images, engine: docker.APIClient) -> Iterator[Callable[..., Registry]]:
    """A factory of registries that end with the test, as do the images that were pulled from them."""
    registries: list[Registry] = []

    def make(*, stalls: bool = False, login: str | None = None) -> Registry:
        registries.append(Registry(images.filesystem, stalls=stalls, login=login))
        return registries[-1]

    yield make
    for registry in registries:
        if engine.images(registry.image):
            engine.remove_image(registry.image, force=True)
        registry.close()


def ended_cleanly(service: Service, engine: docker.APIClient) -> Iterator[Service]:
    """Yield a service; then stop it, and see that no container of it remains."""
    yield service
    try:
        wait_until(lambda: not service.containers(engine), 10, "the service's containers are gone")
        service.stop()
    finally:
        service.kill()
        service.close()
        for container in service.containers(engine):
            engine.remove_container(container["Id"], v=True, force=True)
        for container in service.warm_containers(engine):
            # A busy engine may still be doing that for the service.
            with contextlib.suppress(docker.errors.APIError):
                engine.remove_container(container["Id"], v=True, force=True)
