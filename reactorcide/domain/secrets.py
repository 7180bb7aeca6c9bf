"""The secrets of a job: the values of some variables, and the credentials in its git URL."""

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from urllib.parse import quote, unquote

from reactorcide.domain import services
from reactorcide.domain.definition import MIN_SECRET_CHARS, JobDefinition
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.services import JobService

REDACTED = "[REDACTED]"
"""The placeholder that replaces a secret in all output."""

_LOOKS_SECRET = re.compile(
    r"\w*(?:PASSWORD|PASSWD|PASSPHRASE)|(?:\w*_)?(?:TOKEN|SECRET|CREDENTIALS|APIKEY)|\w*_KEY", re.IGNORECASE
)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)@")
_NO_PASSWORDS = frozenset({"", "x-oauth-basic"})
"""With one of these the user name is the secret: a token."""


def looks_secret(name: str) -> bool:
    """Return whether a variable's name looks secret, which decides if the job has no list of secrets."""
    return _LOOKS_SECRET.fullmatch(name) is not None


def guess(variables: Iterable[str], services: Mapping[str, JobService] | None = None) -> tuple[str, ...]:
    """Return the names of the variables of a job and its services that look secret."""
    of_services = (service.environment for service in (services or {}).values())
    return tuple(dict.fromkeys(filter(looks_secret, chain(variables, *of_services))))


def secret_variables(variables: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the secret variables of a job that are not empty."""
    return {name: variables[name] for name in names if variables.get(name)}


def redacted_variables(definition: JobDefinition) -> dict[str, str]:
    """Return the job's variables with secrets redacted."""
    hidden = secret_variables(definition.job_env_vars, definition.secret_env_vars)
    return {**definition.job_env_vars, **dict.fromkeys(hidden, REDACTED)}


def redacted_services(by_name: Mapping[str, JobService], names: Iterable[str]) -> dict[str, JobService]:
    """Return a job's services with secrets redacted."""
    hidden = secret_service_variables(by_name, names)
    redacted = {name: dict.fromkeys(variables, REDACTED) for name, variables in hidden.items()}
    return services.with_environments(by_name, redacted)


def secret_service_variables(
    services: Mapping[str, JobService] | None, names: Iterable[str]
) -> dict[str, dict[str, str]]:
    """Return the secret variables of the services, by service, without services that have none."""
    names = tuple(names)
    hidden = {
        name: secret_variables(service.environment, names) for name, service in (services or {}).items()
    }
    return {name: variables for name, variables in hidden.items() if variables}


def secret_userinfo(url: str) -> str | None:
    """Return the credentials in a git URL, as written."""
    match = _USERINFO.match(url)
    if match is None or match[2] in ("", ":"):
        return None
    # ssh logs in with keys; its user name is not secret.
    return None if match[1] == "ssh" and ":" not in match[2] else match[2]


def redacted_url(url: str) -> str:
    """Return a git URL with its credentials redacted: ``https://[REDACTED]@host/…``."""
    return _with_userinfo(url, f"{REDACTED}@")


def without_credentials(url: str) -> str:
    """Return a git URL without credentials, the same for all users."""
    return _with_userinfo(url, "")


def check_not_redacted(git_url: str) -> None:
    """Raise ``InvalidInput`` for a git URL with redacted credentials."""
    if REDACTED in (secret_userinfo(git_url) or ""):
        raise InvalidInput(
            f"git_url contains the placeholder {REDACTED}; send the real credentials", "git_url"
        )


def _with_userinfo(url: str, replacement: str) -> str:
    userinfo = secret_userinfo(url)
    return url if userinfo is None else url.replace(f"//{userinfo}@", f"//{replacement}", 1)


def url_secrets(url: str) -> tuple[str, ...]:
    """Return every spelling of a git URL's credentials that must not be shown, the longest first.

    A user name without a password is a secret, because access tokens are written like that.
    """
    userinfo = secret_userinfo(url)
    if userinfo is None:
        return ()
    username, _, password = userinfo.partition(":")
    written = {userinfo, username if unquote(password) in _NO_PASSWORDS else password}
    decoded = {unquote(text) for text in written}
    pair = unquote(username) + ":" + unquote(password)
    encoded = {quote(text, safe=safe) for text in (*decoded, pair) for safe in ("", ":")}
    forms = written | decoded | encoded | {pair, base64.b64encode(pair.encode()).decode()}
    return tuple(sorted((text for text in forms if len(text) >= MIN_SECRET_CHARS), key=len, reverse=True))


def secrets_of(definition: JobDefinition) -> Collection[str]:
    """Return all secrets to replace in the job's output, and in the service's texts about the job."""
    hidden = secret_variables(definition.job_env_vars, definition.secret_env_vars)
    values = [*hidden.values(), *definition.masked]
    for variables in secret_service_variables(definition.services, definition.secret_env_vars).values():
        values += variables.values()
    secrets = [text for text in values if len(text) >= MIN_SECRET_CHARS]
    if definition.git_url is not None:
        secrets += url_secrets(definition.git_url)
    return secrets
