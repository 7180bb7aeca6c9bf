"""Images that were pulled for jobs, and when a job last used each."""

from reactorcide.domain.jobs import PulledImage
from reactorcide.store.connection import Connection
from reactorcide.store.models.service import PulledImageRow

_USED = "UPDATE pulled_image SET last_used_at_ms = ? WHERE image IN (?, ?)"


class Images:
    """Pulled images. Thread-safe."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add(self, image: str, image_id: str, *, now_ms: int, engine: str = "") -> None:
        """Record an image, named with its tag, that was pulled for a job that is about to use it.

        ``engine`` tells the engines of services that share the database apart.
        """
        query = PulledImageRow.insert(
            engine=engine, image=image, image_id=image_id, pulled_at_ms=now_ms, last_used_at_ms=now_ms
        ).on_conflict(
            conflict_target=[PulledImageRow.engine, PulledImageRow.image],
            preserve=[PulledImageRow.image_id, PulledImageRow.pulled_at_ms, PulledImageRow.last_used_at_ms],
        )
        self._db.write(query.execute)

    def used(self, image: str, *, now_ms: int) -> None:
        """Stamp an image, if it was pulled, as used; its name may go without the tag ``latest``."""
        self._db.write(lambda db: db.execute_sql(_USED, (now_ms, image, f"{image}:latest")))

    def remove(self, image: PulledImage) -> None:
        """Remove the record of an image, unless it was pulled anew or used meanwhile."""
        query = PulledImageRow.delete().where(
            (PulledImageRow.engine == image.engine)
            & (PulledImageRow.image == image.image)
            & (PulledImageRow.last_used_at_ms == image.last_used_at_ms)
        )
        self._db.write(query.execute)

    def unused(self, *, since_ms: int, engine: str = "") -> list[PulledImage]:
        """Return the images that were pulled for an engine and that no job, of whichever, has used since."""
        with self._db.read() as db:
            rows = (
                PulledImageRow.select(
                    PulledImageRow.image,
                    PulledImageRow.image_id,
                    PulledImageRow.last_used_at_ms,
                    PulledImageRow.engine,
                )
                .where((PulledImageRow.last_used_at_ms < since_ms) & (PulledImageRow.engine == engine))
                .tuples()
                .execute(db)
            )
            return [PulledImage(*row) for row in rows]
