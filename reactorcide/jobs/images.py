"""Images pulled for jobs."""

from collections.abc import Callable, Iterator

from reactorcide.domain.jobs import PulledImage
from reactorcide.jobs import JobContext
from reactorcide.lib.clock import now_ms


def pulled(context: JobContext, image: str, image_id: str, *, engine: str = "") -> None:
    """Record an image, named with its tag, that was pulled for a job which is about to use it."""
    context.store.images.add(image, image_id, now_ms=now_ms(), engine=engine)


def remove_unused(
    context: JobContext, remove: Callable[[str, str], bool], *, since_ms: int, engine: str = ""
) -> Iterator[PulledImage]:
    """Remove the pulled images that no job has used since then; yields each one when it is removed.

    ``remove`` gets the name and the id of each, and returns whether nothing of it remains.
    """
    for image in context.store.images.unused(since_ms=since_ms, engine=engine):
        if remove(image.image, image.image_id):
            context.store.images.remove(image)
            yield image
