"""Encrypting every encrypted value of the database again with another key."""

from collections.abc import Callable

from reactorcide.lib.records import record
from reactorcide.store import named_secrets, outbox, projects, runs, webhooks
from reactorcide.store.connection import OpenTransaction
from reactorcide.store.sealed import OUTPUTS_OF
from reactorcide.store.vault import Vault

_AT_ONCE = 200


@record
class Sealed:
    """A column of encrypted values."""

    table: str
    column: str
    keys: tuple[str, ...]
    """The primary key of the table."""
    owner: Callable[..., str]
    """Returns the owner that the encryption binds a row's value to, from its primary key."""


SEALED = (
    Sealed("job", "secrets", ("job_id",), str),
    Sealed("job", "outputs", ("job_id",), lambda job_id: OUTPUTS_OF + job_id),
    Sealed("run", "sealed", ("run_id",), str),
    Sealed("node", "sealed", ("run_id", "name"), runs.owner_of),
    Sealed("project", "sealed", ("project_id",), projects.owner_of),
    Sealed("project_credential", "sealed", ("project_id", "kind"), projects.owner_of_credential),
    Sealed("webhook", "sealed", ("webhook_id",), webhooks.owner_of),
    Sealed("webhook", "previous_sealed", ("webhook_id",), webhooks.owner_of),
    Sealed("outbox_lane", "sealed", ("kind", "owner_id"), outbox.owner_of),
    Sealed("named_secret", "sealed", ("project_id", "name"), named_secrets.owner_of),
)


def reseal(db: OpenTransaction, old: Vault, new: Vault) -> int:
    """Encrypt all values of ``old`` with ``new``, and return their number.

    Raises ``StoreError`` if one of them is damaged.
    """
    return sum(_reseal(db, sealed, old, new) for sealed in SEALED)


def _reseal(db: OpenTransaction, sealed: Sealed, old: Vault, new: Vault) -> int:
    keys, marks = ", ".join(sealed.keys), ", ".join("?" * len(sealed.keys))
    select = (
        f"SELECT {sealed.column}, {keys} FROM {sealed.table} WHERE {sealed.column} IS NOT NULL "  # noqa: S608  # names of ours only
        f"AND ({keys}) > ({marks}) ORDER BY {keys} LIMIT ?"
    )
    update = f"UPDATE {sealed.table} SET {sealed.column} = ? WHERE ({keys}) = ({marks})"  # noqa: S608  # as above
    # The service's own secrets have an empty project, and no name is empty.
    after: tuple[str, ...] = ("",) * len(sealed.keys)
    count = 0
    while rows := db.execute(select, (*after, _AT_ONCE)).fetchall():
        for data, *key in rows:
            owner = sealed.owner(*key)
            db.execute(update, (new.encrypt(old.decrypt(bytes(data), owner), owner), *key))
        after = tuple(rows[-1][1:])
        count += len(rows)
    return count
