"""The rate limit of bad tokens and invitations from one address."""

import http.client
import json
import uuid

import pytest

from tests.conftest import NewService
from tests.support.service import Service


@pytest.fixture
def strict(new_service: NewService) -> Service:
    """A service that takes three failures a minute."""
    return new_service(concurrency=0, bad_tokens=3)


def from_address(service: Service, address: str, token: str) -> int:
    """Return what a request from another address of this host is answered."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", service.port, timeout=20, source_address=(address, 0)
    )
    try:
        connection.request("GET", "/api/v1/jobs", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_bad_tokens_are_rate_limited_and_good_ones_are_not(strict: Service) -> None:
    guesser = strict.client("a-guess-of-somebody")
    assert [guesser.request("GET", "jobs").status_code for _ in range(4)] == [401, 401, 401, 429]
    response = guesser.request("DELETE", f"users/{uuid.uuid4()}")
    assert (response.status_code, response.json()["error"]) == (429, "rate_limited")
    assert 0 < int(response.headers["Retry-After"]) <= 20
    # From the same address, also with a token that was never used before.
    assert strict.admin.request("GET", "jobs").status_code == 200
    assert strict.add_user("new").request("GET", "jobs").status_code == 200
    # No token at all is no guess.
    assert strict.anonymous().request("GET", "jobs").status_code == 401
    assert from_address(strict, "127.0.0.2", "a-guess-of-somebody") == 401
    # A monitor with an old token still gets an answer about the health.
    assert guesser.get("health")["verification"]["verified"] is False


def test_bad_invitations_are_rate_limited(strict: Service) -> None:
    value = strict.admin.request("POST", "invitations", json={}).json()["invitation"]
    anonymous = strict.anonymous()

    def register(invitation: str) -> int:
        body = {"invitation": invitation, "username": "eve"}
        return anonymous.request("POST", "register", json=body).status_code

    assert [register("a-guess") for _ in range(4)] == [403, 403, 403, 429]
    assert strict.client("a-guess-of-somebody").request("GET", "jobs").status_code == 429
    assert register(value) == 201
    assert json.dumps(value) not in strict.log_text()
