"""Pulled images by the engine that has them: services that share a database have one each."""

from typing import Any

from peewee import BigIntegerField, CompositeKey, Model, TextField


def up(migrator: Any, db: Any) -> None:
    """Create the table anew, for the only engine so far."""

    class PulledImageRow(Model):
        engine = TextField()
        image = TextField()
        image_id = TextField()
        pulled_at_ms = BigIntegerField()
        last_used_at_ms = BigIntegerField()

        class Meta:
            table_name = "pulled_image"
            primary_key = CompositeKey("engine", "image")

    db.execute_sql("ALTER TABLE pulled_image RENAME TO pulled_image_before")
    with db.bind_ctx([PulledImageRow]):
        db.create_tables([PulledImageRow])
    columns = "image, image_id, pulled_at_ms, last_used_at_ms"
    db.execute_sql(
        f"INSERT INTO pulled_image (engine, {columns}) SELECT '', {columns} FROM pulled_image_before"  # noqa: S608  # names of ours
    )
    db.execute_sql("DROP TABLE pulled_image_before")
