"""Have the database itself write the event of each change of a job's status.

By triggers, so that no change can go without its event, and both are one statement of one transaction.
"""

from typing import Any

_TRIGGERS = (
    """
    CREATE TRIGGER job_created AFTER INSERT ON job BEGIN
        INSERT INTO job_event (job_id, at_ms, status_from, status_to, attempt, reason)
        VALUES (NEW.job_id, NEW.updated_at_ms, NULL, NEW.status, NEW.attempt, NEW.error);
    END
    """,
    """
    CREATE TRIGGER job_changed AFTER UPDATE OF status ON job BEGIN
        INSERT INTO job_event (job_id, at_ms, status_from, status_to, attempt, reason)
        VALUES (NEW.job_id, NEW.updated_at_ms, OLD.status, NEW.status, NEW.attempt, NEW.error);
    END
    """,
)


def up(migrator: Any, db: Any) -> None:
    """Create the triggers."""
    for trigger in _TRIGGERS:
        db.execute_sql(trigger)
