"""The JSON Schema accepts every valid file, and refuses the errors that a schema can express."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from ruamel.yaml import YAML

from reactorcide.workflows import keys
from tests.workflows.support import define, job
from tests.workflows.test_definition import FULL
from tests.workflows.test_errors import EVERYTHING_WRONG
from tests.workflows.test_properties import files_of_any_kind, slow_is_fine

SCHEMA = jsonschema_rs.Draft202012Validator(json.loads(json.dumps(keys.schema())))


def as_json(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_schema_is_valid() -> None:
    assert jsonschema_rs.meta.is_valid(keys.schema())


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        job("matrix: {n: [1], include: [{n: 2}]}\nretries: ${matrix.n}"),
        job("for_each: [a]\nitem_var: B\nimage_pull_secrets: [x]"),
        *(
            path.read_text()
            for path in sorted(Path(__file__).parent.glob("originals/.reactorcide/workflows/*"))
        ),
    ],
)
def test_schema_accepts_valid_files(text: str) -> None:
    SCHEMA.validate(as_json(text))


@pytest.mark.parametrize(
    "keys_of_job",
    [
        "imagee: x",
        "image: [x]",
        "retries: 11",
        "retries: '3'",
        "shell: zsh",
        "timeout: 20x",
        "needs: {a: b}",
        "environment: {A B: x}",
        "services: {db: {ready: x}}",
        "steps: []",
        "allow_failure: 'yes'",
    ],
)
def test_schema_refuses_invalid_jobs(keys_of_job: str) -> None:
    assert define(job(keys_of_job)).errors
    assert not SCHEMA.is_valid(as_json(job(keys_of_job)))


def test_schema_refuses_a_workflow_without_required_keys() -> None:
    assert not SCHEMA.is_valid({"name": "CI"})
    assert not SCHEMA.is_valid(as_json(EVERYTHING_WRONG.replace("    command: make again\n", "")))


@slow_is_fine
@given(files_of_any_kind)
def test_schema_accepts_every_valid_file(workflow: dict[str, Any]) -> None:
    if not define(json.dumps(workflow)).errors:
        SCHEMA.validate(json.loads(json.dumps(workflow)))
