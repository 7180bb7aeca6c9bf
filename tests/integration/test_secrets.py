"""Secrets of a job: the job gets them, and they are never shown."""

import http.server
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewService
from tests.sources.support import serving
from tests.support.client import Client
from tests.support.service import Service

TOKEN = "tok-5f3a9c-of-this-test"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n{\nsecond-line/of+the+key\n-----END KEY-----\n"
LISTED = "listed+and\"qu'oted\\välue"
PASSWORD = "pass%2Fw0rd-in-url"
SECRET_ENV: dict[str, Any] = {
    "job_env_vars": {"API_TOKEN": TOKEN, "DEPLOY_KEY": KEY, "OTHER": LISTED, "SHOWN": "shown", "X_TOKEN": ""},
    "secret_env_vars": ["API_TOKEN", "DEPLOY_KEY", "OTHER", "X_TOKEN"],
}
REDACTED_ENV = {
    "API_TOKEN": "[REDACTED]",
    "DEPLOY_KEY": "[REDACTED]",
    "OTHER": "[REDACTED]",
    "SHOWN": "shown",
    "X_TOKEN": "",
}
NEVER = [
    *(TOKEN, TOKEN[:12], LISTED, json.dumps(LISTED)[1:-1], "w0rd-in-url"),
    *(line for line in KEY.splitlines() if len(line) > 8),
]


def assert_nowhere(service: Service) -> None:
    """See that no secret is in any file of the service, its databases' logs and its own log included."""
    # Files of logs go while they are sealed.
    service.until_sealed()
    paths = [path for path in service.data_dir.rglob("*") if path.is_file()]
    assert {"reactorcide.db", "corndogs.db", "secret-key"} <= {path.name for path in paths}
    for path in (*paths, service.log_path):
        data = path.read_bytes()
        for text in NEVER:
            assert text.encode() not in data, f"{text} in {path}"
    assert TOKEN not in " ".join(str(path) for path in paths)


def test_secrets_in_output_are_masked_in_every_form(service: Service) -> None:
    job = service.admin.run(
        """
        printf tok-5f3a; sleep 0.3; printf '9c-of-this-'; sleep 0.3; echo test
        printf tok-5f3a; sleep 0.3; echo 9d
        echo "$DEPLOY_KEY"
        printf %s "$DEPLOY_KEY" | sed 's/^/  /'
        sleep 0.3
        echo "err $API_TOKEN $OTHER" >&2
        sleep 0.3
        ln -s nowhere "/job/artifacts/$API_TOKEN"
        [ "$SHOWN$X_TOKEN" = shown ]
        printf 'no end: %s' "$API_TOKEN"
        exit 3
        """,
        **SECRET_ENV,
    )
    assert job["exit_code"] == 3
    assert service.admin.log(job).decode().splitlines() == [
        "[REDACTED]",
        "tok-5f3a9d",
        "[REDACTED]",
        "  [REDACTED]",
        "  [REDACTED]",
        "  {",
        "  [REDACTED]",
        "  [REDACTED]",
        "err [REDACTED] [REDACTED]",
        "no end: [REDACTED]",
        "[reactorcide] exit code 3",
        "[reactorcide] artifact '[REDACTED]' is not stored: it is not a regular file",
    ]
    assert_nowhere(service)


def test_secret_printed_in_pieces_is_masked_for_followers(api: Client) -> None:
    job = api.submit(
        "for part in go tok-5f3a 9c-of- this-test ' on'; do printf %s $part; sleep 0.2; done", **SECRET_ENV
    )
    with api.request("GET", f"jobs/{job['job_id']}/logs", params={"follow": "true"}, stream=True) as response:
        content = b"".join(response.iter_content(None))
    assert content == b"go[REDACTED]on"


def test_no_answer_shows_a_secret(idle_service: Service) -> None:
    idle = idle_service.admin
    git = {"source_type": "git", "git_url": f"https://me:{PASSWORD}@example.test/x.git"}
    response = idle.post_job(**SECRET_ENV, **git)
    job = response.json()
    assert (job["job_env_vars"], job["secret_env_vars"]) == (REDACTED_ENV, SECRET_ENV["secret_env_vars"])
    assert job["git_url"] == "https://[REDACTED]@example.test/x.git"
    path = f"jobs/{job['job_id']}"
    answers = [
        response,
        *(idle.request("GET", where) for where in (path, f"{path}/why", f"{path}/attempts", "jobs?limit=1")),
        rerun := idle.request("POST", f"{path}/rerun"),
        idle.request("GET", f"{path}/artifacts/{TOKEN}"),
        idle.request("PUT", f"{path}/cancel"),
        idle.request("POST", f"{path}/cancel"),
    ]
    assert (rerun.json()["job_env_vars"], rerun.json()["git_url"]) == (REDACTED_ENV, job["git_url"])
    for answer in answers:
        text = answer.text + str(answer.headers)
        # A 404 repeats the path of the request.
        assert not any(secret in text for secret in NEVER) or answer.status_code == 404, text
    assert_nowhere(idle_service)


def test_variables_that_look_secret_are_secret_by_default(idle: Client) -> None:
    variables = {"DB_PASSWORD": "abc", "PATH_X": "abcd"}
    guessed = idle.submit(job_env_vars=variables)
    assert guessed["job_env_vars"] == {"DB_PASSWORD": "[REDACTED]", "PATH_X": "abcd"}
    assert guessed["secret_env_vars"] == ["DB_PASSWORD"]
    none = idle.submit(job_env_vars=variables, secret_env_vars=[])
    assert (none["job_env_vars"], none["secret_env_vars"]) == (variables, [])
    other = idle.submit(job_env_vars=variables, secret_env_vars=["PATH_X", "PATH_X"])
    assert other["job_env_vars"] == {"DB_PASSWORD": "abc", "PATH_X": "[REDACTED]"}
    assert other["secret_env_vars"] == ["PATH_X"]


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"secret_env_vars": ["NOPE"]}, "secret_env_vars", "no variable 'NOPE'"),
        ({"job_env_vars": {"A": "abc"}, "secret_env_vars": ["A"]}, "secret_env_vars", "shorter than 4"),
        ({"secret_env_vars": "A"}, "secret_env_vars", "list"),
        ({"job_env_vars": {"A_KEY": "[REDACTED]"}}, "job_env_vars", "send the secret"),
        (
            {"job_env_vars": {"A": "[REDACTED]"}, "secret_env_vars": ["A"]},
            "job_env_vars",
            "send the secret",
        ),
        (
            {"source_type": "git", "git_url": "https://[REDACTED]@example.test/x"},
            "git_url",
            "the real credentials",
        ),
    ],
)
def test_contradictory_secret_fields_are_refused(
    idle: Client, fields: dict[str, Any], field: str, text: str
) -> None:
    response = idle.post_job(**fields)
    assert response.status_code == 400
    (detail,) = response.json()["details"]
    assert detail["field"] == field
    assert text in detail["message"]


def test_definition_without_secrets_can_be_resubmitted(idle: Client) -> None:
    first = idle.submit(job_env_vars={"A": "[REDACTED]"})
    again = idle.submit(job_env_vars=first["job_env_vars"], secret_env_vars=first["secret_env_vars"])
    assert again["job_env_vars"] == {"A": "[REDACTED]"}


class Blabbing(http.server.BaseHTTPRequestHandler):
    """In place of a git server, something that says all it knows."""

    def do_GET(self) -> None:
        """Refuse."""
        body = f"{TOKEN}, {PASSWORD}, pass/w0rd-in-url\n".encode()
        self.send_response(403)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def test_answers_of_a_git_server_are_not_shown(service: Service) -> None:
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blabbing)) as port:
        job = service.admin.run(
            source_type="git", git_url=f"http://me:{PASSWORD}@127.0.0.1:{port}/x", **SECRET_ENV
        )
    assert job["status"] == "failed"
    assert job["git_url"] == f"http://[REDACTED]@127.0.0.1:{port}/x"
    assert b"returned error: 403" in service.admin.log(job)
    assert_nowhere(service)


def test_rerun_after_a_restart_has_the_secrets(new_service: NewService) -> None:
    service = new_service()
    # What it shows of them is no secret: the first letters, and how long they are.
    command = 'echo "$API_TOKEN" | head -c 3; echo " ${#API_TOKEN} ${#DEPLOY_KEY}"'
    first = service.admin.run(command, **SECRET_ENV)
    service.stop()
    service.start()
    again = service.admin.wait(service.admin.request("POST", f"jobs/{first['job_id']}/rerun").json())
    expected = f"tok {len(TOKEN)} {len(KEY)}\n".encode()
    assert [service.admin.log(job) for job in (first, again)] == [expected, expected]
    assert_nowhere(service)


def test_service_does_not_start_without_its_secrets_key(new_service: NewService, tmp_path: Path) -> None:
    service = new_service(concurrency=0)
    service.admin.cancel(service.admin.submit(**SECRET_ENV))
    service.stop()
    key = service.data_dir / "secret-key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.rename(tmp_path / "kept")
    with pytest.raises(AssertionError, match=f"reactorcide: the key {key} is missing"):
        service.start()
    assert not key.exists()
    (tmp_path / "kept").rename(key)
    service.start()
    assert service.admin.get("jobs")["total"] == 1
    assert service.until_ready()["checks"]["worker"] == "ok"
