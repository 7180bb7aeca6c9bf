"""Schedules of projects, and what became of their due times."""

from typing import Any

from peewee import BigIntegerField, BooleanField, CompositeKey, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Create two tables."""

    class ScheduleRow(Model):
        schedule_id = TextField(primary_key=True)
        project_id = TextField()
        name = TextField()
        cron = TextField()
        timezone = TextField()
        branch = TextField(null=True)
        workflow = TextField(null=True)
        variables = TextField()
        enabled = BooleanField()
        when_running = TextField()
        next_due_at_ms = BigIntegerField(null=True)
        reckoned_at_ms = BigIntegerField()
        created_at_ms = BigIntegerField()
        updated_at_ms = BigIntegerField()

        class Meta:
            table_name = "schedule"
            indexes = ((("project_id", "name"), True),)

    class OccurrenceRow(Model):
        schedule_id = TextField()
        due_at_ms = BigIntegerField()
        at_ms = BigIntegerField()
        outcome = TextField()
        run_ids = TextField()

        class Meta:
            table_name = "schedule_occurrence"
            primary_key = CompositeKey("schedule_id", "due_at_ms")

    tables = [ScheduleRow, OccurrenceRow]
    with db.bind_ctx(tables):
        db.create_tables(tables)
