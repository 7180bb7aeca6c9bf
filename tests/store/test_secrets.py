"""The secrets of a job are encrypted on disk, with a key beside the database."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.jobs import JobFilter, JobStatus
from reactorcide.domain.secrets import secrets_of
from reactorcide.store import Store
from tests.store.test_jobs import add, claim, move
from tests.support.store import AnyDatabase, new_store, sqlite_only

VALUE = "s3cret-värde-of-a-variable"
URL = "https://me:passw0rd-in-url@example.test/x"
SECRET: dict[str, Any] = {
    "job_env_vars": {"PLAIN": "shown", "TOKEN": VALUE, "LAST": ""},
    "secret_env_vars": ("TOKEN",),
    "source_type": "git",
    "git_url": URL,
}


def on_disk(directory: Path) -> bytes:
    """Return everything that is there, by now or still in the write-ahead log."""
    return b"".join(path.read_bytes() for path in directory.iterdir())


def assert_nowhere(directory: Path) -> None:
    data = on_disk(directory)
    for text in (VALUE, json.dumps(VALUE)[1:-1], "passw0rd-in-url"):
        assert text.encode() not in data


def reopened(database: AnyDatabase) -> Store:
    store = new_store(database)
    store.instance.open_vault()
    return store


def key(database: AnyDatabase) -> Path:
    return database.path.with_name("secret-key")


@sqlite_only
def test_a_job_comes_back_with_its_secrets_which_are_not_on_disk(
    database: AnyDatabase, store: Store, tmp_path: Path
) -> None:
    job = add(store, **SECRET)
    assert store.jobs.get(job.job_id) == job
    assert list(job.definition.job_env_vars) == list(store.jobs.get(job.job_id).definition.job_env_vars)
    assert store.lists.page(JobFilter(), limit=1)[0] == [job]
    # What a sweep hands on needs none of them.
    ((swept, _),) = store.tasks.to_submit(now_ms=job.created_at_ms)
    assert swept.job_id == job.job_id
    assert not {*secrets_of(job.definition)} & {*secrets_of(swept.definition)}
    assert move(store, job, JobStatus.QUEUED).definition == job.definition
    assert claim(store, job).definition == job.definition
    assert [attempt.job.definition for attempt in store.attempts.unfinished()] == [job.definition]
    assert reopened(database).jobs.get(job.job_id).definition == job.definition
    assert_nowhere(tmp_path)


def test_key_file_is_private(database: AnyDatabase, store: Store) -> None:
    assert key(database).stat().st_mode & 0o777 == 0o600
    first = key(database).read_bytes()
    reopened(database)
    assert key(database).read_bytes() == first


@sqlite_only
def test_the_key_has_mode_0600_despite_umask_and_old_files(database: AnyDatabase) -> None:
    key(database).with_name("secret-key.new").write_text("half")
    store = new_store(database)
    store.instance.id("instance")
    umask = os.umask(0)
    try:
        store.instance.open_vault()
    finally:
        os.umask(umask)
    assert key(database).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in key(database).parent.glob("secret-key*")) == ["secret-key"]


@pytest.mark.parametrize("trouble", ["missing", "another one"])
def test_without_its_key_a_database_with_secrets_is_refused(
    database: AnyDatabase, store: Store, trouble: str
) -> None:
    job = add(store, **SECRET)
    saved = key(database).read_bytes()
    key(database).unlink()
    if trouble == "another one":
        key(database).write_text("ab" * 32)
    with pytest.raises(ConfigurationError, match=f"secret-key is {trouble}.*put it back"):
        reopened(database)
    # No new key replaces it, either.
    assert key(database).exists() == (trouble == "another one")
    key(database).write_bytes(saved)
    assert reopened(database).jobs.get(job.job_id) == job


def test_unused_key_can_be_removed(database: AnyDatabase, store: Store) -> None:
    add(store, job_env_vars={"A": "b"})
    key(database).unlink()
    job = add(reopened(database), **SECRET)
    assert reopened(database).jobs.get(job.job_id) == job


@sqlite_only
@pytest.mark.parametrize("content", ["", "not a key", "ab" * 31])
def test_malformed_key_file_is_refused(database: AnyDatabase, store: Store, content: str) -> None:
    key(database).write_text(content)
    with pytest.raises(ConfigurationError, match="secret-key"):
        reopened(database)
    assert key(database).read_text() == content


def test_the_secrets_of_one_job_cannot_be_given_to_another(database: AnyDatabase, store: Store) -> None:
    victim, other = add(store, **SECRET), add(store, job_env_vars={"TOKEN": "x"}, secret_env_vars=("TOKEN",))
    with database.transaction() as tx:
        tx.execute(
            "UPDATE job SET secrets = (SELECT secrets FROM job WHERE job_id = ?) WHERE job_id = ?",
            (victim.job_id, other.job_id),
        )
    with pytest.raises(StoreError, match=other.job_id):
        store.jobs.get(other.job_id)
    assert store.jobs.get(victim.job_id) == victim


def test_each_job_is_encrypted_differently(database: AnyDatabase, store: Store) -> None:
    for _ in range(2):
        add(store, **SECRET)
    with database.read() as db:
        first, second = db.execute_sql("SELECT secrets FROM job").fetchall()
    assert first != second


def test_a_job_without_secrets_has_nothing_encrypted(database: AnyDatabase, store: Store) -> None:
    add(store, job_env_vars={"A": "b", "TOKEN": ""}, secret_env_vars=("TOKEN",), git_url="git@example.test:x")
    with database.read() as db:
        assert db.execute_sql("SELECT secrets FROM job").fetchall() == [(None,)]


@sqlite_only
def test_plain_secrets_of_an_earlier_version_are_encrypted_at_start(
    database: AnyDatabase, store: Store, tmp_path: Path
) -> None:
    secret, plain, deleted = add(store, **SECRET), add(store, job_env_vars={"A": "b"}), add(store, **SECRET)
    # As that version stored them.
    with database.transaction() as tx:
        tx.execute("UPDATE instance SET secret_key_sha256 = NULL")
        tx.execute(
            "UPDATE job SET job_env_vars = ?, git_url = ?, secrets = NULL, secret_env_vars = NULL "
            "WHERE job_id <> ?",
            (json.dumps(SECRET["job_env_vars"]), URL, plain.job_id),
        )
        tx.execute("DELETE FROM job WHERE job_id = ?", (deleted.job_id,))
    key(database).unlink()
    assert b"passw0rd-in-url" in on_disk(tmp_path)
    later = reopened(database)
    assert [later.jobs.get(job.job_id) for job in (secret, plain)] == [secret, plain]
    assert_nowhere(tmp_path)


@sqlite_only
def test_interrupted_encryption_continues_at_the_next_start(database: AnyDatabase, store: Store) -> None:
    job = add(store, **SECRET)
    with database.transaction() as tx:
        tx.execute("UPDATE instance SET secret_key_sha256 = NULL")
    assert reopened(database).jobs.get(job.job_id) == job
