"""The images and sources that the jobs of this service may use."""

from collections.abc import Mapping, Sequence

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import InvalidInput, JobFailed
from reactorcide.domain.images import full_reference, is_allowed
from reactorcide.sources.roots import SourceRoots
from reactorcide.sources.urls import check_git_ref


class SourceRules:
    """The operator's rules. Thread-safe.

    ``allow_images`` are globs of the images that jobs may use; without any, all may be used.
    """

    def __init__(self, roots: SourceRoots, allow_images: Sequence[str] = ()) -> None:
        self._roots = roots
        self._allow_images = tuple(allow_images)

    def check(self, definition: JobDefinition) -> None:
        """Raise ``InvalidInput`` unless the image and the source that a job names may be used here."""
        self._check_images_of(definition)
        self.check_source(definition)

    def image(self, definition: JobDefinition) -> str:
        """Return the image name for the engine; raises ``JobFailed`` if the image may not be used."""
        try:
            # Also checked at submission, but the service may have been restarted with other settings.
            self._check_images_of(definition)
        except InvalidInput as exc:
            raise JobFailed(f"the image cannot be used any more: {exc}") from exc
        return self._engine_name(definition.runner_image)

    def service_images(self, definition: JobDefinition) -> dict[str, str]:
        """Return the image names for the engine, by service; call ``image`` first."""
        services = definition.services or {}
        return {name: self._engine_name(service.image) for name, service in services.items()}

    def _engine_name(self, image: str) -> str:
        # An engine first takes a short name of hex digits as the id of an image, which may have any name.
        return full_reference(image) if self._allow_images else image

    def check_source(self, definition: JobDefinition) -> None:
        """Raise ``InvalidInput`` unless the source that a job names may be used here."""
        if definition.source_type == "copy":
            if definition.source_path is not None:
                self._roots.resolve(definition.source_path)
            return
        if definition.git_url is not None:
            self.check_git_url(definition.git_url)
        if definition.git_ref is not None:
            self.check_git_ref(definition.git_ref)

    def check_git_url(self, url: str) -> None:
        """Raise ``InvalidInput`` for ``git_url`` unless jobs may clone it."""
        self._roots.check_git_url(url)

    def check_git_ref(self, ref: str) -> None:
        """Raise ``InvalidInput`` for ``git_ref`` unless it can name a branch, tag, full ref or commit."""
        check_git_ref(ref)

    def _check_images_of(self, definition: JobDefinition) -> None:
        services = definition.services or {}
        self.check_images(definition.runner_image, {name: own.image for name, own in services.items()})

    def check_images(self, image: str | None, of_services: Mapping[str, str]) -> None:
        """Raise ``InvalidInput`` unless jobs may use an image, if it is known, and those of services."""
        images = [] if image is None else [("runner_image", "runner_image", image)]
        images += [("services", f"services: the image of {name},", own) for name, own in of_services.items()]
        for field, what, used in images:
            if not is_allowed(used, self._allow_images):
                raise InvalidInput(
                    f"{what} {full_reference(used)} is none of those that jobs may use: "
                    + ", ".join(self._allow_images),
                    field=field,
                )
