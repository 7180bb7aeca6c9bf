"""Services of a job: containers that run beside it, in its network."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from reactorcide.domain import images
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.variables import MAX_EXEC_BYTES, MAX_VALUE_BYTES, VARIABLE_NAME, exec_bytes
from reactorcide.lib.records import record

MAX_SERVICES = 10
MAX_READY_TIMEOUT_S = 3600
DEFAULT_READY_TIMEOUT_S = 60
MAX_SCRIPT_BYTES = 32 << 10
MAX_VARIABLES = 100
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED = ("localhost",)
NAME_LIKE = "a host name of lower-case letters, digits and '-'"
_SHELL_OPERATORS = ("&&", "||", "|", ";", "&", ">", ">>", "<")
_KEYS = ("image", "environment", "command", "ready", "ready_timeout")


@record
class JobService:
    """A container beside a job; its name is its host name there."""

    image: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: str | None = None
    """Words, quoted as in a shell, that replace the image's command; ``None``: the image's command."""
    ready: str | None = None
    """A script that succeeds once the service is ready; ``None``: the image's health check."""
    ready_timeout: int = DEFAULT_READY_TIMEOUT_S
    """In seconds, from its start."""


_NAME_SCHEMA = {"pattern": f"^{NAME.pattern}$"}
_SCRIPT_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_SCRIPT_BYTES, "pattern": r"^[^\x00]*$"},
        {"type": "null"},
    ]
}
SCHEMA: Mapping[str, Any] = {
    "maxProperties": MAX_SERVICES,
    "propertyNames": _NAME_SCHEMA,
    "additionalProperties": {
        "type": "object",
        "required": ["image"],
        "additionalProperties": False,
        "properties": {
            "image": {"type": "string", "maxLength": 255, "pattern": f"^(?:{images.PATTERN})$"},
            "environment": {
                "type": "object",
                "maxProperties": MAX_VARIABLES,
                "propertyNames": {"pattern": f"^{VARIABLE_NAME.pattern}$"},
                "additionalProperties": {
                    "type": "string",
                    "maxLength": MAX_VALUE_BYTES,
                    "pattern": r"^[^\x00]*$",
                },
            },
            "command": _SCRIPT_SCHEMA,
            "ready": _SCRIPT_SCHEMA,
            "ready_timeout": {"type": "integer", "minimum": 1, "maximum": MAX_READY_TIMEOUT_S},
        },
    },
}
"""JSON Schema of the services in a request; ``parse`` checks more."""


def parse(services: Mapping[str, Any] | None) -> dict[str, JobService] | None:
    """Return the services of a request, ``None`` if there are none; raises ``InvalidInput``."""
    if not services:
        return None
    if len(services) > MAX_SERVICES:
        raise _invalid(f"services: there are more than {MAX_SERVICES}")
    return {name: _service(name, value) for name, value in services.items()}


def load(stored: Mapping[str, Any] | None) -> dict[str, JobService] | None:
    """Return services from stored JSON."""
    return None if stored is None else {name: JobService(**value) for name, value in stored.items()}


def with_environments(
    services: Mapping[str, JobService], environments: Mapping[str, Mapping[str, str]]
) -> dict[str, JobService]:
    """Return services with some of their variables replaced."""
    return {
        name: replace(service, environment={**service.environment, **environments.get(name, {})})
        for name, service in services.items()
    }


def command_problem(command: str) -> str | None:
    """Return a phrase that says why the command of a service is invalid; ``None`` for a valid one."""
    try:
        words = shlex.split(command)
    except ValueError as exc:
        return f"cannot be split into words: {exc}"
    if not words:
        return "is empty"
    # The image's entrypoint would get it as an argument.
    of_shell = [word for word in words if word in _SHELL_OPERATORS]
    if of_shell:
        return f"has the word {of_shell[0]}, but no shell runs it; write sh -c '…' for a script"
    return None


def _service(name: str, value: Any) -> JobService:
    if NAME.fullmatch(name) is None or name in _RESERVED:
        raise _invalid(f"services: {name[:100]!r} is not {NAME_LIKE}")
    for key in value:
        if key not in _KEYS:
            raise _invalid(f"services: {key[:100]!r} is not a key of a service; it has {', '.join(_KEYS)}")
    image = value.get("image")
    if not isinstance(image, str) or len(image) > 255 or not images.is_image_reference(image):
        raise _invalid(f"services: the image of {name} is not an image reference")
    command = _script(name, "command", value.get("command"))
    if command is not None and (problem := command_problem(command)):
        raise _invalid(f"services: the command of {name} {problem}")
    timeout_s = value.get("ready_timeout", DEFAULT_READY_TIMEOUT_S)
    if type(timeout_s) is not int or not 1 <= timeout_s <= MAX_READY_TIMEOUT_S:
        raise _invalid(f"services: the ready_timeout of {name} is not 1 to {MAX_READY_TIMEOUT_S} seconds")
    return JobService(
        image,
        _environment(name, value.get("environment", {})),
        command,
        _script(name, "ready", value.get("ready")),
        timeout_s,
    )


def _script(name: str, key: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value or len(value.encode()) > MAX_SCRIPT_BYTES:
        raise _invalid(f"services: the {key} of {name} is not a text of at most 32 KiB without NUL")
    return value


def _environment(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_VARIABLES:
        raise _invalid(
            f"services: the environment of {name} is not an object of at most {MAX_VARIABLES} variables"
        )
    for variable, text in value.items():
        if VARIABLE_NAME.fullmatch(variable) is None:
            raise _invalid(f"services: {variable[:100]!r} of {name} is not a variable name")
        if not isinstance(text, str) or "\0" in text or len(text.encode()) > MAX_VALUE_BYTES:
            raise _invalid(
                f"services: the value of {variable[:100]} of {name} is not a text of 32 KiB or less"
            )
    if exec_bytes(value) >= MAX_EXEC_BYTES:
        raise _invalid(f"services: the variables of {name} together are {MAX_EXEC_BYTES >> 20} MiB or more")
    return dict(value)


def _invalid(message: str) -> InvalidInput:
    return InvalidInput(message, "services")
