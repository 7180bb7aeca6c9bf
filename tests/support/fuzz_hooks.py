"""Hooks for Schemathesis: rules that no schema can express."""

import re
from collections.abc import Mapping
from typing import Any

import schemathesis
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.support.contract import api_document
from tests.support.tars import member, tar_gz

_UNSAID = {
    # What is on the service's host, or in its database.
    "source_path": "source_path must lead to a directory below one of the server's source roots",
    "source_id": "you have uploaded no source with this source_id",
    # Of a run, also what git says of it: it is fetched at once.
    "git_url": "git_url must lead to a repository below one of the server's source roots|git: .*",
    "environment": "environment: .*",
    "secrets": "secrets: .* KiB or contains NUL",
    "value": "there is no such secret yet, so it needs a value|the value is longer than .*",
    # What holds between parameters, or between a list and the keys of an object.
    "cursor": "give either a cursor or an offset",
    "from_line": "from_line cannot be combined with (tail|follow)",
    "lines": "lines cannot be combined with (tail|follow)",
    "service": "service cannot be combined with a part of the log, or with follow",
    "secret_env_vars": "secret_env_vars: (there is no variable .*|the value of .* is shorter than .*)",
    # What is counted in bytes of UTF-8, or in units.
    "job_command": "job_command is longer than 100 KiB",
    "description": "description is longer than 64 KiB",
    "job_env_vars": (
        "job_env_vars: the value of .* is longer than 32 KiB or contains NUL"
        "|job_env_vars and job_command together must stay below 1 MiB"
    ),
    # What is split into words, as a shell does it.
    "services": "services: the command of .* (cannot be split into words: .*|is empty)",
    "memory_limit": "memory_limit must be at least 6m",
    # Of a schedule: what no pattern can say.
    "cron": "'.*' is not a cron expression; .*|the time '.*' never comes; .*",
    "timezone": "there is no time zone '.*'; .*",
    "branch": "'.*' is not a branch name",
    "vars": "vars belong to a workflow: .*",
    # The clock.
    "expires_at": "expires_at is in the past",
}
"""By field, for what else data that the document calls valid may be refused with 400."""


@schemathesis.check
def valid_data_is_accepted(ctx: Any, response: Any, case: Any) -> bool | None:
    """Schemathesis' own check, but for the refusals of which no schema can tell."""
    means_well = case.meta is not None and case.meta.generation.mode.is_positive
    if means_well and response.status_code == 400 and (_is_unsaid(response.json()) or not _is_valid(case)):
        return None
    return positive_data_acceptance(ctx, response, case)


def _is_valid(case: Any) -> bool:
    """Tell whether the document takes the body; Schemathesis overlooks a ``not`` now and then."""
    document = api_document()
    content = (
        document["paths"][case.operation.path][case.method.lower()].get("requestBody", {}).get("content", {})
    )
    schema = content.get("application/json", {}).get("schema", {})
    validator = Draft202012Validator(schema | {"components": document["components"]}, validate_formats=True)
    return validator.is_valid(case.body) if schema else True


def _is_unsaid(error: Mapping[str, Any]) -> bool:
    if error["message"].endswith("so it is no delivery of this project's forge"):
        # Which header has the id of a delivery depends on the forge.
        return True
    details = error.get("details", [])
    return bool(details) and all(
        re.fullmatch(_UNSAID.get(item["field"], "(?!)"), item["message"], re.DOTALL) for item in details
    )


_NAMES = st.text("abcdefgh._- é", min_size=1, max_size=12).filter(lambda name: name not in (".", ".."))


@st.composite
def sources(draw: st.DrawFn) -> bytes:
    """A tar.gz of some files, as an upload has to be."""
    files = draw(st.dictionaries(_NAMES, st.binary(max_size=64), max_size=4))
    return tar_gz(*(member(name, content) for name, content in files.items()))


schemathesis.openapi.media_type("application/octet-stream", sources())
