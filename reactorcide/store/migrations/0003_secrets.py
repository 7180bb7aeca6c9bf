"""Which variables of a job are secret, their values encrypted, and by which key.

``job.secret_env_vars`` are names as JSON, none where it is NULL; ``job.secrets`` has what is ``[REDACTED]``
in the other columns. Where ``instance.secret_key_sha256`` is NULL there was no key yet, and secrets are in
plain text: the next start encrypts them.
"""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the columns."""
    db.execute_sql("ALTER TABLE instance ADD COLUMN secret_key_sha256 BLOB")
    db.execute_sql("ALTER TABLE job ADD COLUMN secret_env_vars TEXT")
    db.execute_sql("ALTER TABLE job ADD COLUMN secrets BLOB")
