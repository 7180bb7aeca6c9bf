"""Which parts of a job are secret, and what stands in their place."""

import pytest

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.secrets import (
    guess,
    looks_secret,
    redacted_url,
    redacted_variables,
    secrets_of,
    url_secrets,
)
from reactorcide.domain.services import JobService


def definition(**fields: object) -> JobDefinition:
    required = {"name": "n", "job_command": "true", "source_type": "copy", "runner_image": "i"}
    return JobDefinition(**required | fields)  # type: ignore[arg-type]  # the tests know the types


@pytest.mark.parametrize(
    "name",
    [
        *("TOKEN", "GITHUB_TOKEN", "github_token", "PASSWORD", "DB_PASSWORD", "PGPASSWORD", "MYSQL_PASSWD"),
        *("GPG_PASSPHRASE", "SECRET", "CLIENT_SECRET", "API_KEY", "AWS_SECRET_ACCESS_KEY", "APIKEY"),
        *("GOOGLE_CREDENTIALS", "_KEY"),
    ],
)
def test_names_that_look_secret_are_recognized(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["KEY", "TOKENS", "TOKEN_URL", "KEYBOARD", "MONKEY", "SECRETARY", "AWS_ACCESS_KEY_ID", "PATH"]
)
def test_other_names_are_not_secret(name: str) -> None:
    assert not looks_secret(name)


def test_guess_preserves_the_order() -> None:
    assert guess({"B_KEY": "", "X": "", "A_KEY": ""}) == ("B_KEY", "A_KEY")
    db = JobService("x", {"B_KEY": "", "DB_PASSWORD": "", "Y": ""})
    assert guess({"B_KEY": ""}, {"db": db}) == ("B_KEY", "DB_PASSWORD")


def test_only_secret_values_are_redacted() -> None:
    job = definition(
        job_env_vars={"A": "a", "TOKEN": "abcd", "B_TOKEN": "", "C_TOKEN": "xyz"},
        secret_env_vars=("TOKEN", "B_TOKEN", "C_TOKEN"),
    )
    assert list(redacted_variables(job).items()) == [
        ("A", "a"),
        ("TOKEN", "[REDACTED]"),
        ("B_TOKEN", ""),
        ("C_TOKEN", "[REDACTED]"),
    ]
    # One that is too short would take its letters out of the whole log.
    assert secrets_of(job) == ["abcd"]


def test_repr_and_str_show_no_secret() -> None:
    job = definition(job_env_vars={"A": "the-value"}, git_url="https://me:the-value@example.test/x")
    assert "the-value" not in repr(job)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.test/x", "https://example.test/x"),
        ("https://@example.test/x", "https://@example.test/x"),
        ("https://:@example.test/x", "https://:@example.test/x"),
        ("https://me:pass@example.test/x", "https://[REDACTED]@example.test/x"),
        ("https://token@example.test:8443/x@y", "https://[REDACTED]@example.test:8443/x@y"),
        ("http://a@b:c@example.test/x", "http://[REDACTED]@example.test/x"),
        ("git://me@example.test/x", "git://[REDACTED]@example.test/x"),
        ("ssh://git@example.test/x", "ssh://git@example.test/x"),
        ("ssh://git:pass@example.test/x", "ssh://[REDACTED]@example.test/x"),
        ("git@example.test:x", "git@example.test:x"),
        ("file:///srv/a@b", "file:///srv/a@b"),
        ("/srv/a@b", "/srv/a@b"),
    ],
)
def test_a_url_is_shown_without_its_credentials(url: str, expected: str) -> None:
    assert redacted_url(url) == expected
    assert (url_secrets(url) == ()) == (url == expected)


def test_credentials_are_recognized_in_every_encoding() -> None:
    secrets = url_secrets("https://me:pass%2fw%C3%B6rd@example.test/x")
    assert {
        "me:pass%2fw%C3%B6rd",
        "pass%2fw%C3%B6rd",
        "pass/wörd",
        "pass%2Fw%C3%B6rd",
        "me:pass/wörd",
    } <= set(secrets)
    assert "bWU6cGFzcy93w7ZyZA==" in secrets
    assert list(secrets) == sorted(secrets, key=len, reverse=True)


def test_a_name_without_a_password_is_a_token() -> None:
    assert "tokentoken" in url_secrets("https://tokentoken@example.test/x")
    assert "tokentoken" in url_secrets("https://tokentoken:x-oauth-basic@example.test/x")
    # Beside a password it is none: it may be a word that every log is full of.
    assert "tokentoken" not in url_secrets("https://tokentoken:password@example.test/x")


def test_credentials_are_secrets_of_the_job() -> None:
    assert "password" in secrets_of(
        definition(source_type="git", git_url="https://me:password@example.test/x")
    )
