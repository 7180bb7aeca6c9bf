"""Replacing the references in the definition of a node's job."""

from collections.abc import Callable, Mapping
from typing import Any

from reactorcide.domain import services
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.images import is_image_reference
from reactorcide.domain.runs import JobTemplate
from reactorcide.domain.services import JobService
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.lib.records import record
from reactorcide.workflows.references import Reference, Template, TemplateJson


@record
class Filled:
    """The values of a template, without references."""

    fields: Mapping[str, Any]
    environment: dict[str, str]
    services: Mapping[str, JobService] | None


def fill(template: JobTemplate, value_of: Callable[[Reference], str]) -> Filled:
    """Replace the references of a template.

    Raises ``InvalidInput`` if the result is not a valid job, and the errors of ``value_of``.
    """

    def text(value: TemplateJson) -> str:
        return Template.of_json(value).fill(value_of)

    def environment(variables: Mapping[str, TemplateJson]) -> dict[str, str]:
        filled = {name: text(value) for name, value in variables.items()}
        for name, value in filled.items():
            if len(value.encode()) > MAX_VALUE_BYTES:
                raise InvalidInput(f"the value of {name} is larger than {MAX_VALUE_BYTES >> 10} KiB")
        return filled

    image = text(template["fields"]["runner_image"])
    if not is_image_reference(image):
        raise InvalidInput(f"its image {image[:200]!r} is not an image reference")
    values = {
        name: {**service, "image": text(service["image"]), "environment": environment(service["environment"])}
        # A run of an older version has none.
        for name, service in template.get("services", {}).items()
    }
    return Filled(
        {**template["fields"], "runner_image": image},
        environment(template["environment"]),
        services.parse(values),
    )
