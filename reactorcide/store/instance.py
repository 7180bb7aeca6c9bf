"""This installation: its id, and the key that encrypts the secrets in its database."""

import json
from collections.abc import Callable
from typing import Any

from reactorcide import crashpoints
from reactorcide.domain.audit import AuditEntry
from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.secrets import guess
from reactorcide.store.audit import Audit
from reactorcide.store.connection import JobDatabase
from reactorcide.store.models.service import InstanceRow
from reactorcide.store.reseal import SEALED, reseal
from reactorcide.store.sealed import SealedFields
from reactorcide.store.vault import Vault

_UPDATE_SEALED = (
    "UPDATE job SET job_env_vars = ?, git_url = ?, services = ?, secret_env_vars = ?, secrets = ? "
    "WHERE job_id = ?"
)
_IS_USED = " OR ".join(
    f"EXISTS (SELECT 1 FROM {item.table} WHERE {item.column} IS NOT NULL)"  # noqa: S608  # names of ours only
    for item in SEALED
)


class Instance:
    """The installation that a database belongs to. Thread-safe."""

    def __init__(self, database: JobDatabase, vault: Vault, sealed: SealedFields) -> None:
        self._database = database
        self._vault = vault
        self._sealed = sealed
        self._id: str | None = None

    @property
    def cached_id(self) -> str:
        """This installation's id, read once. Raises ``StoreError`` if the database has none yet."""
        if self._id is None:
            with self._database.read() as db:
                row = db.execute_sql("SELECT instance_id FROM instance").fetchone()
            if row is None:
                raise StoreError("the database has no id of its installation yet; start the service once")
            self._id = str(row[0])
        return self._id

    def id(self, proposed: str) -> str:
        """Return this installation's id; the first call stores ``proposed``."""

        def work(db: Any) -> str:
            for (instance_id,) in InstanceRow.select(InstanceRow.instance_id).tuples().execute(db):
                return str(instance_id)
            InstanceRow.insert(instance_id=proposed).execute(db)
            return proposed

        return self._database.write(work)

    def objects_url(self) -> str | None:
        """Return the bucket that has the objects; ``None`` if the data directory has them."""
        with self._database.read() as db:
            row = db.execute_sql("SELECT objects_url FROM instance").fetchone()
        return None if row is None else row[0]

    def save_objects_url(self, url: str | None) -> None:
        """Record where the objects are."""
        self._database.write(InstanceRow.update(objects_url=url).execute)

    def open_vault(self, has_others: Callable[[], bool] = lambda: False) -> None:
        """Read the key that encrypts secrets; the first call creates it. Safe to repeat.

        It then also encrypts secrets that an earlier version stored in plain text. Call it before any job is
        added or read, on a database with an instance id. Raises ``ConfigurationError`` if the key is missing
        or is another one, although something is encrypted, or another service works on this database.
        """
        with self._database.read() as db:
            key_sha256 = db.execute_sql("SELECT secret_key_sha256 FROM instance").fetchone()[0]
        self._end_rekey(key_sha256)
        if not self._vault.load():
            self._check_unused(key_sha256, "is missing", has_others)
            self._vault.create()
        fingerprint = self._vault.fingerprint
        if key_sha256 == fingerprint:
            return
        self._check_unused(key_sha256, "is another one", has_others)
        if key_sha256 is None:
            self._encrypt_plain()
        before = InstanceRow.secret_key_sha256
        is_unchanged = before.is_null() if key_sha256 is None else before == key_sha256
        update = InstanceRow.update(secret_key_sha256=fingerprint).where(is_unchanged)
        if not self._database.write(update.execute):
            # Another service has started for the first time, too, and stored its key.
            raise self._wrong_key("is another one")

    def rekey(self, entry: AuditEntry) -> int:
        """Encrypt all secrets with a new key, and return the number of values.

        This is one transaction, which decides the valid key: the new key is stored beside the old one before,
        and replaces it afterwards, at the next start if interrupted.
        """
        self.open_vault()
        following = self._vault.successor()
        following.create()
        crashpoints.reached("rekey-key-created")
        with self._database.transaction() as db:
            count = reseal(db, self._vault, following)
            db.execute("UPDATE instance SET secret_key_sha256 = ?", (following.fingerprint,))
            Audit(db).add(entry)
            crashpoints.reached("rekey-written")
        crashpoints.reached("rekey-committed")
        self._vault.replace_by(following)
        self._database.shrink()
        return count

    def _end_rekey(self, key_sha256: bytes | None) -> None:
        """Use the new key of an interrupted renewal, if it was committed; otherwise remove it."""
        following = self._vault.successor()
        if not following.load():
            return
        if following.fingerprint == key_sha256:
            self._vault.replace_by(following)
        else:
            following.path.unlink(missing_ok=True)

    def _check_unused(self, key_sha256: bytes | None, trouble: str, has_others: Callable[[], bool]) -> None:
        """Raise ``ConfigurationError`` if anything is encrypted with the key of ``key_sha256``."""
        if key_sha256 is None:
            return
        if has_others():
            raise self._wrong_key(trouble)
        with self._database.read() as db:
            used = db.execute_sql(f"SELECT {_IS_USED}").fetchone()[0]
        if used:
            raise ConfigurationError(
                f"the key {self._vault.path} {trouble}, and the database beside it has secrets of jobs "
                "encrypted with it; put it back from a backup, copy it from the data directory of another "
                "service on this database, or choose another directory with --data-dir"
            )

    def _wrong_key(self, trouble: str) -> ConfigurationError:
        return ConfigurationError(
            f"the key {self._vault.path} {trouble}, and another service works on this database: all of them "
            "need the same; copy the file secret-key from the data directory of that service into this one, "
            "readable by the service's user alone"
        )

    def _encrypt_plain(self) -> None:
        """Encrypt the secrets of jobs that are in plain text, and leave no copy of them in the file."""

        def work(db: Any) -> bool:
            rows = db.execute_sql("SELECT job_id, job_env_vars, git_url, secrets FROM job").fetchall()
            for job_id, stored, git_url, secrets in rows:
                # An interrupted start has encrypted the jobs up to this one.
                if secrets is not None:
                    continue
                variables = json.loads(stored)
                columns = self._sealed.seal(job_id, variables, guess(variables), git_url)
                if columns["secrets"] is not None:
                    db.execute_sql(_UPDATE_SEALED, (*columns.values(), job_id))
            return bool(rows)

        if self._database.write(work):
            self._database.shrink()
