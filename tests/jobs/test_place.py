"""Which object store a start accepts as the one that has the installation's objects."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.domain.errors import ConfigurationError, ObjectStoreError, ObjectStoreRefused
from reactorcide.jobs import StoredJobs, place
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.objects import ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.objects.memory import MemoryObjectStore
from reactorcide.store.database import Database
from tests.support.store import new_store

URL = "s3://bucket/ci"


class Broken(MemoryObjectStore):
    """A bucket that does not take an object."""

    def __init__(self, problem: ObjectStoreError) -> None:
        super().__init__()
        self._problem = problem

    def check(self) -> None:
        raise self._problem


class Installation:
    """A data directory, and what its starts find."""

    def __init__(self, directory: Path, instance_id: str) -> None:
        self.objects_dir = directory / "objects"
        self.objects_dir.mkdir(parents=True)
        self.database = Database(directory / "reactorcide.db")
        self.database.migrate()
        self.store = new_store(self.database)
        self.store.instance.id(instance_id)

    def start(self, url: str | None, objects: ObjectStore) -> bool:
        logs = LocalLogStore(self.objects_dir.parent / "logs", objects)
        context = StoredJobs(store=self.store, objects=objects, logs=logs, notifier=LocalNotifier())
        return place.check(context, url, self.objects_dir)

    def start_locally(self) -> bool:
        return self.start(None, FilesystemObjectStore(self.objects_dir))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path / "one", "instance-1")
    yield installation
    installation.database.close()


def test_new_installation_binds_to_its_bucket(installation: Installation, tmp_path: Path) -> None:
    bucket = MemoryObjectStore()
    FilesystemObjectStore(installation.objects_dir).check()
    assert installation.start(URL, bucket)
    assert installation.start(URL, bucket)
    assert installation.store.instance.objects_url() == URL
    other = Installation(tmp_path / "other", "instance-2")
    with pytest.raises(ConfigurationError, match=f"{URL} has the objects of another installation"):
        other.start(URL, bucket)
    assert other.start_locally()
    other.database.close()


def test_changed_object_store_must_have_the_objects(installation: Installation) -> None:
    local, bucket = FilesystemObjectStore(installation.objects_dir), MemoryObjectStore()
    assert installation.start_locally()
    local.put("sources/1/source.tar.gz", [b"x"])
    with pytest.raises(ConfigurationError, match=f"are in {installation.objects_dir}; .* to {URL}"):
        installation.start(URL, bucket)
    assert installation.start_locally()
    # As the sentence says.
    bucket.put("instance", [b"instance-1\n"])
    assert installation.start(URL, bucket)
    with pytest.raises(ConfigurationError, match=f"are in {URL}; name that with --objects"):
        installation.start_locally()
    with pytest.raises(ConfigurationError, match=f"are in {URL}; .* write instance-1 into s3://new/instance"):
        installation.start("s3://new", MemoryObjectStore())
    local.put("instance", [b"instance-1"])
    assert installation.start_locally()
    assert installation.store.instance.objects_url() is None


def test_unreachable_bucket_is_retried_and_refusal_is_an_error(installation: Installation) -> None:
    away = Broken(ObjectStoreError("the object store could not be reached"))
    with pytest.raises(ConfigurationError, match="could not be reached; it is needed for the first start"):
        installation.start(URL, away)
    assert installation.start(URL, MemoryObjectStore())
    assert not installation.start(URL, away)
    with pytest.raises(ConfigurationError, match="the credentials are wrong"):
        installation.start(URL, Broken(ObjectStoreRefused("the credentials are wrong")))
