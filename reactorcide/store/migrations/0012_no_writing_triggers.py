"""Events, audit entries and the use of images are written by the program, and no longer by triggers.

The triggers that refuse to change or remove an audit entry stay: they write nothing. What a job's row had
only for its trigger is in the audit.
"""

from typing import Any

_TRIGGERS = ("job_created", "job_changed", "job_audited", "image_used")
_COLUMNS = ("token_id", "address", "request_id")


def up(migrator: Any, db: Any) -> None:
    """Drop the triggers, and the columns of ``job`` that only they read."""
    for name in _TRIGGERS:
        db.execute_sql(f"DROP TRIGGER {name}")
    for name in _COLUMNS:
        db.execute_sql(f"ALTER TABLE job DROP COLUMN {name}")
