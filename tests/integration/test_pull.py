"""Images that have to be fetched first, from a real registry."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import docker

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.image import Images
from tests.support.registry import Registry
from tests.support.waiting import wait_until

LOGIN = "somebody:s3cret word"


def test_missing_image_is_pulled_and_logged(api: Client, new_registry: Callable[..., Registry]) -> None:
    image = new_registry().image
    first = api.run("echo ran", runner_image=image)
    assert first["status"] == "completed", api.log(first)
    lines = api.log(first).decode().splitlines()
    assert lines[0] == f"[reactorcide] pulling image {image}"
    assert any("Pull complete" in line for line in lines)
    assert len(lines) < 20
    assert lines[-1] == "ran"
    second = api.run("echo ran", runner_image=image)
    assert api.log(second) == b"ran\n"


def test_concurrent_jobs_pull_the_same_image(api: Client, new_registry: Callable[..., Registry]) -> None:
    image = new_registry().image
    jobs = [api.submit(runner_image=image) for _ in range(2)]
    assert [api.wait(job)["status"] for job in jobs] == ["completed"] * 2


def test_pull_beyond_its_timeout_fails(
    new_service: NewService, new_registry: Callable[..., Registry]
) -> None:
    api = new_service(prepare_timeout=2).admin
    job = api.submit(runner_image=new_registry(stalls=True).image)
    wait_until(lambda: b"2 s" in api.log(job, attempt=1), 10, "its log says that it is given up")
    # Whether it is tried again or has failed: it does not hold its place.
    wait_until(lambda: api.job(job)["status"] != "running", 10, "it is given up")
    api.request("DELETE", f"jobs/{job['job_id']}")


def docker_config(directory: Path, **config: object) -> None:
    """Write a configuration of Docker's command line."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))


def login(registry: Registry) -> dict[str, object]:
    """Return what ``docker login`` leaves in the configuration."""
    return {registry.address: {"auth": base64.b64encode(LOGIN.encode()).decode()}}


def test_private_registry_without_login_is_a_clear_error(
    new_service: NewService, new_registry: Callable[..., Registry]
) -> None:
    registry = new_registry(login=LOGIN)
    service = new_service()
    job = service.admin.run(runner_image=registry.image)
    assert job["status"] == "failed"
    assert job["error"].startswith(f"image {registry.image} may not be pulled: ")
    assert "docker login" in job["error"]
    # One that is created while the service runs counts.
    docker_config(service.home / ".docker", auths=login(registry))
    again = service.admin.run("echo ran", runner_image=registry.image)
    assert again["status"] == "completed", service.admin.log(again)
    assert LOGIN.partition(":")[2].encode() not in service.admin.log(again)
    # What is here by now is everybody's.
    (service.home / ".docker" / "config.json").unlink()
    assert service.add_user("another").run(runner_image=registry.image)["status"] == "completed"


def test_docker_config_selects_the_login(
    new_service: NewService, new_registry: Callable[..., Registry], tmp_path: Path
) -> None:
    registry = new_registry(login=LOGIN)
    docker_config(tmp_path / "elsewhere", auths=login(registry))
    api = new_service({"DOCKER_CONFIG": str(tmp_path / "elsewhere")}).admin
    job = api.run("env", runner_image=registry.image)
    assert job["status"] == "completed", api.log(job)
    assert b"DOCKER_CONFIG" not in api.log(job)


def test_credential_helper_is_used(
    new_service: NewService, new_registry: Callable[..., Registry], tmp_path: Path
) -> None:
    registry = new_registry(login=LOGIN)
    helper = tmp_path / "docker-credential-test"
    user, _, password = LOGIN.partition(":")
    answer = json.dumps({"ServerURL": registry.address, "Username": user, "Secret": password})
    helper.write_text(f"#!/bin/sh\n[ -e {tmp_path}/broken ] && exit 3\necho '{answer}'\n")
    helper.chmod(0o755)
    docker_config(tmp_path / "config", credHelpers={registry.address: "test"})
    (tmp_path / "broken").touch()
    api = new_service(
        {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DOCKER_CONFIG": str(tmp_path / "config")}
    ).admin
    broken = api.submit(runner_image=registry.image)
    wait_until(lambda: b"the credentials to pull" in api.log(broken, attempt=1), 10, "its log tells")
    (tmp_path / "broken").unlink()
    job = api.wait(broken)
    assert job["status"] == "completed", api.log(job)


def test_pull_policy_is_always_or_never(
    new_service: NewService, new_registry: Callable[..., Registry]
) -> None:
    registry = new_registry()
    never = new_service(pull="never").admin
    job = never.run(runner_image=registry.image)
    assert (job["status"], registry.tag_requests) == ("failed", 0)
    assert job["error"] == f"image not found: {registry.image} is not here, and --pull is never"
    always = new_service(pull="always").admin
    for _ in range(2):
        before = registry.tag_requests
        assert always.run(runner_image=registry.image)["status"] == "completed"
        assert registry.tag_requests > before
    before = registry.tag_requests
    assert never.run(runner_image=registry.image)["status"] == "completed"
    assert registry.tag_requests == before


def test_only_allowed_images_can_be_used(
    new_service: NewService, images: Images, engine: docker.APIClient
) -> None:
    # The default image of this service is not among them, but has an id that would pass for a name.
    service = new_service(concurrency=0, allow_image="docker.io/library/*", pull="never")
    api = service.admin
    for refused in ("evil/image", "ghcr.io/library/alpine", f"evil.io/docker.io/library/{images.default}"):
        response = api.post_job(runner_image=refused)
        assert response.status_code == 400, response.text
        assert [item["field"] for item in response.json()["details"]] == ["runner_image"]
        assert "docker.io/library/*" in response.json()["message"]
    image_id = engine.images(images.user_1000)[0]["Id"].removeprefix("sha256:")
    by_id = api.submit(runner_image=image_id[:12])
    by_name = api.submit(runner_image=images.default)
    waiting = api.submit(runner_image=images.user_1000)
    service.stop()
    service.options["concurrency"] = 1
    service.options["allow_image"] = images.default
    service.start()
    assert api.wait(by_name)["status"] == "completed"
    for job in (api.wait(by_id), api.wait(waiting)):
        assert job["error"].startswith("the image cannot be used any more: runner_image docker.io/library/")
    service.stop()
    service.options["allow_image"] = "docker.io/library/*"
    service.start()
    # By its id the engine has the image, by this name it has none.
    again = api.wait(api.request("POST", f"jobs/{by_id['job_id']}/rerun").json())
    assert again["error"].startswith(f"image not found: docker.io/library/{image_id[:12]}:latest ")
