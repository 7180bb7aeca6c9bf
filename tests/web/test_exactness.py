"""What the document calls valid is what the service takes, and the other way round."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from pydantic import ValidationError

from reactorcide.accounts.users import checked_email
from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.clock import from_rfc3339
from reactorcide.sources.urls import GitUrl, check_git_ref
from reactorcide.web.api import lists
from reactorcide.web.api.accounts import routes as account_routes
from reactorcide.web.api.openapi import model_of
from tests.integration.test_fields import BAD, BODY, GIT
from tests.support.contract import api_document

SOURCE_ID = "0" * 64
JOB_ID = "0198c0de-1d2c-7b3a-9f4e-5a6b7c8d9e0f"
# Of bytes, of the host's files and of variables together no schema can tell.
_UNSAID = [
    ("source_path", "/etc"),
    ("source_path", "../.."),
    ("source_path", "nothing-there"),
    ("job_command", "é" * 60 * 1024),
    ("description", "é" * 33 * 1024),
    ("job_env_vars", {f"N{i}": "x" * 32 * 1024 for i in range(32)}),
]


@cache
def validator(name: str) -> Draft202012Validator:
    """What checks a value by a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": api_document()["components"]}
    return Draft202012Validator(schema, validate_formats=True)


def is_valid(name: str, value: Any) -> bool:
    """Tell whether a schema of the document takes a value."""
    return validator(name).is_valid(value)


def is_accepted(name: str, value: Any) -> bool:
    """Tell whether the model of that name takes a value."""
    model = model_of(name)
    assert model is not None
    try:
        model.model_validate(value)
    except (ValidationError, InvalidInput):
        return False
    return True


@pytest.mark.parametrize(
    ("field", "value"), [item for item in BAD if item not in _UNSAID and item[1] is not None]
)
def test_refused_bodies_are_invalid_by_the_schema(field: str, value: Any) -> None:
    assert not is_valid("JobRequest", BODY | {field: value})


@pytest.mark.parametrize("field", sorted(BODY))
def test_the_document_marks_required_fields(field: str) -> None:
    assert not is_valid("JobRequest", {name: value for name, value in BODY.items() if name != field})
    assert not is_valid("JobRequest", BODY | {field: None})


JOBS: list[tuple[dict[str, Any], bool]] = [
    (BODY, True),
    (BODY | dict.fromkeys(("git_url", "git_ref", "source_id", "source_job_id", "retries")), True),
    (BODY | {"source_id": SOURCE_ID}, True),
    (BODY | {"source_job_id": JOB_ID, "source_id": None}, True),
    (BODY | {"source_job_id": JOB_ID, "source_id": SOURCE_ID}, False),
    (BODY | {"source_path": "a", "source_id": SOURCE_ID}, False),
    (BODY | {"source_path": "a", "source_job_id": JOB_ID}, False),
    (BODY | {"source_job_id": JOB_ID.upper()}, False),
    (BODY | GIT, True),
    (BODY | GIT | {"source_path": None, "git_submodules": False}, True),
    (BODY | GIT | {"source_path": "a"}, False),
    (BODY | GIT | {"git_url": None}, False),
    (BODY | {"source_type": "git"}, False),
    (BODY | {"timeout_seconds": 5, "cpu_limit": 1, "memory_limit": "6m"}, True),
    (BODY | {"memory_limit": (6 << 20) - 1}, False),
    (BODY | {"code_dir": "/job//artifacts/x"}, False),
    (BODY | {"job_dir": "/job/artifacts"}, True),
    (BODY | {"colour": None}, False),
]


@pytest.mark.parametrize(("job", "good"), JOBS, ids=range(len(JOBS)))
def test_schema_and_code_accept_the_same_jobs(job: dict[str, Any], good: bool) -> None:
    assert (is_valid("JobRequest", job), is_accepted("JobRequest", job)) == (good, good)


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, False),
        ({"role": None}, False),
        ({"role": None, "is_active": None}, False),
        ({"role": None, "is_active": True}, True),
        ({"role": "admin"}, True),
    ],
)
def test_schema_and_code_accept_the_same_changes_of_a_user(change: dict[str, Any], good: bool) -> None:
    assert (is_valid("UserChange", change), is_accepted("UserChange", change)) == (good, good)


def _takes(check: Callable[[str], object]) -> Callable[[str], bool]:
    def takes(text: str) -> bool:
        try:
            check(text)
        except (ValueError, InvalidInput):
            return False
        return True

    return takes


FIELDS: dict[str, Callable[[str], bool]] = {
    "git_url": _takes(GitUrl.parse),
    "git_ref": _takes(check_git_ref),
    **{
        field: lambda text, field=field: is_accepted("JobRequest", BODY | {field: text})  # type: ignore[misc]  # a default
        for field in ("name", "queue_name", "runner_image", "code_dir", "job_dir")
    },
    "artifacts": lambda text: is_accepted("JobRequest", BODY | {"artifacts": [text]}),
}
# Of whatever the rules are about, much; and of everything else a little.
_PARTS = [
    "a",
    "B",
    "0",
    "é",
    ".",
    "..",
    "/",
    "//",
    ":",
    "@",
    "-",
    "_",
    "*",
    "**",
    "?",
    "#",
    "[",
    "]",
    "{",
    "%",
]
_PARTS += ["%0a", "\\", "~", "^", " ", "\0", "\n", "\x7f", "\u202e", "\u2028", ".lock", "https://", "ssh://"]
_PARTS += [
    "git://",
    "file:///",
    "ext::",
    "[::1]",
    ":8080",
    ":65536",
    ":000080",
    "/job",
    "/artifacts",
    "@sha256:" + "0" * 32,
]
_TEXTS = st.lists(st.sampled_from(_PARTS) | st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=8)


@pytest.mark.parametrize("field", sorted(FIELDS))
@settings(max_examples=400, database=None, derandomize=True)
@given(parts=_TEXTS)
@example(parts=["https://user:password@example.test:8080/project.git"])
@example(parts=["git@example.test:team/project.git"])
@example(parts=["ssh://git:x@[::1]/a"])
@example(parts=["/srv/a b.git"])
@example(parts=["a", "\n"])
@example(parts=[])
def test_pattern_matches_the_rule_in_code(field: str, parts: list[str]) -> None:
    text = "".join(parts)
    job = (BODY | GIT if field.startswith("git_") else BODY) | {
        field: [text] if field == "artifacts" else text
    }
    assert is_valid("JobRequest", job) == FIELDS[field](text), repr(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.0019z", 1),
        ("1970-01-01 01:00:00.5+01:00", 500),
        ("1998-12-31T23:59:60Z", 915_148_800_000),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799_999),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
    ],
)
def test_rfc_3339_time_is_accepted(text: str, ms: int) -> None:
    assert from_rfc3339(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2030-01-31",
        "2030-01-31T12:00:00",
        "2030-01-31T12:00Z",
        "20300131T120000Z",
        "2030-W05-4T12:00:00Z",
        "2030-02-30T12:00:00Z",
        "2030-01-31T24:00:00Z",
        "2030-01-31T12:00:00+24:00",
        "٢٠٣٠-01-31T12:00:00Z",
    ],
)
def test_other_time_is_refused(text: str) -> None:
    assert not is_valid("TokenRequest", {"name": "n", "expires_at": text})
    assert not _takes(from_rfc3339)(text)


@pytest.mark.parametrize(
    ("email", "good"),
    [
        ("ann@example.com", True),
        (f"ann@{'x' * 60}.{'x' * 60}.{'x' * 60}.{'x' * 55}.example", True),
        ("ann", False),
        ("@example.com", False),
        ("ann@", False),
        ("ann lee@example.com", False),
        (f"ann@{'x' * 60}.{'x' * 60}.{'x' * 60}.{'x' * 60}.example", False),
    ],
)
def test_schema_and_code_accept_the_same_emails(email: str, good: bool) -> None:
    user = {"username": "ann", "email": email}
    assert (is_valid("UserRequest", user), _takes(checked_email)(email)) == (good, good)


@pytest.mark.parametrize(
    ("path", "from_cursor", "cursor", "good"),
    [
        ("jobs", lists.from_cursor, f"1700000000000.{JOB_ID}", True),
        ("jobs", lists.from_cursor, f"{'1' * 16}.{JOB_ID}", False),
        ("jobs", lists.from_cursor, f".{JOB_ID}", False),
        ("jobs", lists.from_cursor, f"1.{JOB_ID.upper()}", False),
        ("jobs", lists.from_cursor, f"\u0661.{JOB_ID}", False),
        ("jobs", lists.from_cursor, "1.", False),
        ("jobs", lists.from_cursor, "", False),
        ("audit", account_routes._from_cursor, "17", True),
        ("audit", account_routes._from_cursor, "1" * 19, False),
        ("audit", account_routes._from_cursor, "-1", False),
        ("audit", account_routes._from_cursor, "\u0661", False),
        ("audit", account_routes._from_cursor, "", False),
    ],
)
def test_schema_and_code_accept_the_same_cursors(
    path: str, from_cursor: Callable[[str], object], cursor: str, good: bool
) -> None:
    parameters = api_document()["paths"][f"/api/v1/{path}"]["get"]["parameters"]
    [schema] = [item["schema"] for item in parameters if item["name"] == "cursor"]
    assert (Draft202012Validator(schema).is_valid(cursor), _takes(from_cursor)(cursor)) == (good, good)


def test_every_pattern_has_no_flags_or_named_groups() -> None:
    """ECMA-262 has neither ``(?i)`` nor ``(?P<name>…)``, and its ``\\d`` and ``\\w`` are not Python's."""
    patterns = re.findall(r"'pattern': '((?:[^'\\]|\\.)*)'", repr(api_document()))
    assert len(patterns) > 10
    assert [pattern for pattern in patterns if re.search(r"\(\?[^:=!]|\\\\[dwsDWSAZ]", pattern)] == []
