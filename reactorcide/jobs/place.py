"""Checking that the object store has the objects of this installation.

With a wrong one every log and artifact would seem to be lost, and the start would remove objects of another
installation. So a bucket has an object with the id of its installation, and the database stores the bucket.
"""

import logging
from pathlib import Path

from reactorcide.domain.errors import ConfigurationError, ObjectNotFound, ObjectStoreError, ObjectStoreRefused
from reactorcide.jobs import StoredJobs

log = logging.getLogger("reactorcide.jobs")

MARKER = "instance"
MAX_MARKER_BYTES = 128


def check(context: StoredJobs, url: str | None, objects_dir: Path) -> bool:
    """Return whether the objects are at ``url`` (``None``: in ``objects_dir``); ``False`` if it is
    unreachable.

    A new installation claims the bucket. Raises ``ConfigurationError`` if the bucket may not be used, is
    another installation's, or does not have the objects of this one.
    """
    instance = context.store.instance
    recorded = instance.objects_url()
    if url is None and recorded is None:
        return True
    here, there = url or str(objects_dir), recorded or str(objects_dir)
    try:
        if url is not None:
            context.objects.check()
        owner = _owner(context)
    except ObjectStoreRefused as exc:
        raise ConfigurationError(str(exc)) from exc
    except ObjectStoreError as exc:
        if url != recorded:
            raise ConfigurationError(f"{exc}; it is needed for the first start with it") from exc
        log.warning("%s; its objects are missing until it is back", exc)
        return False
    if owner not in (None, instance.cached_id):
        raise ConfigurationError(
            f"{here} has the objects of another installation ({owner}); name another bucket or prefix with "
            "--objects"
        )
    if owner is None:
        if recorded is not None or _has_files(objects_dir):
            marker = f"{here}/{MARKER}"
            raise ConfigurationError(
                f"the objects of this installation are in {there}; name that with --objects, or copy all of "
                f"them to {here}, and write {instance.cached_id} into {marker}"
            )
        context.objects.put(MARKER, [instance.cached_id.encode()])
    if url != recorded:
        instance.save_objects_url(url)
    return True


def _owner(context: StoredJobs) -> str | None:
    try:
        return b"".join(context.objects.read(MARKER, 0, MAX_MARKER_BYTES)).decode(errors="replace").strip()
    except ObjectNotFound:
        return None


def _has_files(directory: Path) -> bool:
    return any(path.is_file() and path.parent.name != ".tmp" for path in directory.rglob("*"))
