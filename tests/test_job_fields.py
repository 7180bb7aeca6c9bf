"""Each field of a job is declared once; here it is looked for wherever it has to be."""

import re
from pathlib import Path
from types import EllipsisType
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from reactorcide.cli.jobs import _FIELD_TITLES
from reactorcide.cli.submit import submit
from reactorcide.domain.definition import JOB_FIELDS, JobDefinition
from reactorcide.domain.fields import JobField
from reactorcide.domain.jobs import Job, JobStatus
from reactorcide.domain.services import JobService
from reactorcide.lib.ids import new_id
from reactorcide.store.database import Database
from reactorcide.web.api.jobs.routes import job_json
from tests.support.contract import api_document
from tests.support.reference import table
from tests.support.store import new_store

# By options that do more than to give the field, or by arguments.
_OTHER_OPTIONS = {
    "name": "NAME",
    "job_command": "COMMAND",
    "source_type": "--git",
    "git_url": "--git",
    "source_path": "--source",
    "source_id": "--upload",
    "source_job_id": "--source-job",
    "job_env_vars": "--env",
    "secret_env_vars": "--secret-env",
    "artifacts": "--artifact",
    "services": "--file",
}
# ``jobs show`` shows them in its own way, or not at all.
_NOT_LISTED = {"source_type", "job_env_vars", "secret_env_vars", "retries", "artifacts", "services"}


def other_value(item: JobField) -> Any:
    """Return a value of a field that is not its default."""
    if item.name == "source_type":
        return get_args(item.type)[0]
    values = {
        str: "other",
        bool: not item.default,
        int: 7,
        float: 1.5,
        dict[str, str]: {"NAME": "value"},
        list[str]: ["other"],
        dict[str, dict[str, Any]]: {"db": JobService("image", {"NAME": "value"}, "command", "ready", 5)},
    }
    return values[item.about.json_type or item.type]


@pytest.fixture
def job() -> Job:
    """Return a job of which each field has another value than its default."""
    values = {item.name: other_value(item) for item in JOB_FIELDS} | {"secret_env_vars": ("NAME",)}
    return Job(
        job_id=new_id(),
        user_id="ann",
        definition=JobDefinition(**values),
        status=JobStatus.SUBMITTED,
        created_at_ms=1,
        updated_at_ms=1,
    )


def test_each_field_is_stored(job: Job, tmp_path: Path) -> None:
    database = Database(tmp_path / "reactorcide.db")
    database.migrate()
    store = new_store(database)
    store.instance.id(new_id())
    store.instance.open_vault()
    store.jobs.add(job, next_submit_at_ms=0)
    assert store.jobs.get(job.job_id) == job
    database.close()


def test_each_field_is_answered(job: Job) -> None:
    view = job_json(job)
    for item in JOB_FIELDS:
        if item.about.source_type == "copy":
            # Of a job with another source.
            assert view[item.json_name] is None
        elif item.name == "services":
            assert view["services"]["db"]["environment"] == {"NAME": "[REDACTED]"}
            assert view["services"]["db"]["ready_timeout"] == 5
        elif item.name not in ("job_env_vars", "secret_env_vars"):
            assert view[item.json_name] == getattr(job.definition, item.name)


@pytest.mark.parametrize("schema", ["GitJobRequest", "CopyJobRequest", "JobResponse"])
def test_each_field_is_in_the_document(schema: str) -> None:
    properties = api_document()["components"]["schemas"][schema]["properties"]
    assert {item.json_name for item in JOB_FIELDS} <= properties.keys()


def test_each_field_is_in_the_reference() -> None:
    documented = re.findall(r"`([a-z_]+)`", " ".join(cells[0] for cells in table("Fields of a job")))
    assert sorted(documented) == sorted(item.json_name for item in JOB_FIELDS)


def test_each_field_can_be_given_on_the_command_line() -> None:
    text = CliRunner().invoke(submit, ["--help"]).output
    for item in JOB_FIELDS:
        option = item.about.option
        assert (option is None) == (item.name in _OTHER_OPTIONS), item.name
        assert (_OTHER_OPTIONS[item.name] if option is None else f"{option.name} ") in text


def test_each_field_is_shown_on_the_command_line() -> None:
    assert {item.json_name for item in JOB_FIELDS} - _NOT_LISTED == {
        item.json_name for item in JOB_FIELDS if item.json_name in _FIELD_TITLES
    }


def test_field_without_default_is_required() -> None:
    required = api_document()["components"]["schemas"]["CopyJobRequest"]["required"]
    assert required == [item.json_name for item in JOB_FIELDS if isinstance(item.json_default, EllipsisType)]
