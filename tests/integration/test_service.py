"""Starting and stopping the service, and its messages and metrics."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import NewService
from tests.support.image import Images
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until


@pytest.fixture
def serve(tmp_path: Path, images: Images) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``serve`` with options that it cannot start with, and return how it ended."""

    def run(
        variables: Mapping[str, str] = MappingProxyType({}), **options: object
    ) -> subprocess.CompletedProcess[str]:
        options = {"port": 0, "data_dir": tmp_path / "data", "default_image": images.default} | options
        arguments = command_line("serve", options)
        with subprocess.Popen(
            arguments,
            env=clean_environment(tmp_path, **variables),
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                _, printed = process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                pytest.fail(f"it has started: {options}", pytrace=False)
        return subprocess.CompletedProcess(arguments, process.returncode, "", printed)

    return run


def test_a_new_service_is_ready_to_run_jobs(new_service: NewService) -> None:
    service = new_service()
    assert service.data_dir.is_dir()
    assert f"The admin's token is in {service.data_dir}/admin-token" in service.log_text()
    ready = service.until_ready()
    checks = ("database", "corndogs", "docker", "object_store", "worker")
    assert ready["checks"] == dict.fromkeys(checks, "ok")
    assert all(0 <= age_s < 5 for age_s in ready["ages_s"].values())
    assert service.admin.run()["status"] == "completed"


def test_second_start_preserves_everything_and_prints_no_token(new_service: NewService) -> None:
    service = new_service()
    job = service.admin.run("echo kept >/job/artifacts/kept; echo printed")
    files = service.admin.artifacts(job)
    service.stop()
    count = service.log_text().count("The admin's token")
    service.start()
    assert service.log_text().count("The admin's token") == count == 1
    assert service.admin.job(job) == job
    assert service.admin.log(job) == b"printed\n"
    assert service.admin.artifacts(job) == files


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("whole_group", [True, False])
def test_signal_stops_the_service_in_time_despite_followers(
    new_service: NewService, number: signal.Signals, whole_group: bool
) -> None:
    service = new_service(concurrency=0)
    job = service.admin.submit()
    lines = service.admin.follow(job)
    followed = lines.__enter__()
    service.stop(number, whole_group=whole_group)
    # Not a proper end: that would look as if the log were complete.
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        list(followed)


def test_a_second_service_on_the_same_data_is_refused(
    idle_service: Service, serve: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    ended = serve(data_dir=idle_service.data_dir)
    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    assert "another reactorcide (process " in sentence
    assert str(idle_service.data_dir) in sentence
    assert idle_service.admin.request("GET", "jobs").status_code == 200


@pytest.mark.parametrize(
    ("option", "value", "module"),
    [("database", "postgresql://127.0.0.1/x", "psycopg"), ("objects", "s3://bucket", "boto3")],
)
def test_missing_library_of_an_option_is_a_clear_error(
    serve: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    option: str,
    value: str,
    module: str,
) -> None:
    """As where the program was installed without ``[scale]``."""
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')")
    ended = serve({"PYTHONPATH": str(tmp_path)}, **{option: value})
    assert ended.returncode == 3
    sentence = ended.stderr.splitlines()[-1]
    assert f"needs {module}: install it with pip install 'reactorcide[scale]'" in sentence
    assert "Traceback" not in ended.stderr


def test_damaged_database_or_key_is_to_be_put_back(
    new_service: NewService, serve: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    service = new_service()
    service.stop()
    damaged = shutil.copytree(service.data_dir, tmp_path / "damaged")
    for name, problem in (("secret-key", "is not one of 32 bytes"), ("reactorcide.db", "not a database")):
        (damaged / name).write_bytes(b"\xff" * 5000)
        ended = serve(data_dir=damaged)
        assert ended.returncode == 3
        sentence = ended.stderr.splitlines()[-1]
        assert problem in sentence
        assert "put back" in sentence


@pytest.fixture
def used_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_port_in_use_is_a_clear_error(
    serve: Callable[..., subprocess.CompletedProcess[str]], used_port: int
) -> None:
    ended = serve(port=used_port)
    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    assert str(used_port) in sentence


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", "http"),
        ("port", -1),
        ("port", 65536),
        ("host", "no.such.host.test"),
        ("concurrency", -1),
        ("concurrency", "many"),
        ("log_format", "xml"),
        ("log_level", "loud"),
        ("source_root", "/nothing/there"),
        ("data_dir", "/dev/null/data"),
        ("cancel_grace", -1),
        ("prepare_timeout", 0),
        ("lease", 0),
        ("stream_slots", -1),
        ("default_memory_limit", "5q"),
        ("max_cpu_limit", 0),
        ("corndogs_address", "no-port"),
        ("corndogs_address", "http://127.0.0.1:5080"),
        ("default_image", "not an image"),
        ("colour", "red"),
    ],
)
def test_bad_option_is_a_clear_error(
    serve: Callable[..., subprocess.CompletedProcess[str]], option: str, value: object
) -> None:
    ended = serve(**{option: value})
    assert ended.returncode in (1, 2)
    assert "Traceback" not in ended.stderr
    named = option.replace("_", "-") in ended.stderr or str(value) in ended.stderr
    assert named, ended.stderr


def test_options_can_come_from_the_environment(new_service: NewService) -> None:
    service = new_service({"REACTORCIDE_LOG_FORMAT": "json", "REACTORCIDE_MAX_CPU_LIMIT": "2"}, concurrency=0)
    assert service.admin.submit()["cpu_limit"] == 2
    assert '{"time": ' in service.log_text()


@pytest.mark.parametrize(("mode", "is_open"), [(None, False), (0o750, False), (0o755, True)])
def test_world_readable_data_directory_logs_a_warning(
    new_service: NewService, tmp_path: Path, mode: int | None, is_open: bool
) -> None:
    data_dir = tmp_path / "the data"
    if mode is not None:
        data_dir.mkdir(mode)
    service = new_service(data_dir=data_dir, concurrency=0)
    assert (f"chmod o= '{data_dir}'" in service.log_text()) is is_open


def test_log_format_json_writes_json(service: Service) -> None:
    job = service.admin.run("false")
    service.admin.request("GET", "/nothing")
    # The sentences for whoever started it are no part of the log.
    plain = ("Reactorcide listens", "The admin's token")
    lines = [json.loads(line) for line in service.log_text().splitlines() if not line.startswith(plain)]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    changes = [
        line for line in lines if line.get("job_id") == job["job_id"] and line["logger"] == "reactorcide.jobs"
    ]
    assert [line["status"] for line in changes] == ["queued", "running", "failed"]
    assert changes[0]["request_id"]
    requests_logged = [line for line in lines if "method" in line]
    assert all(line["request_id"] and line["status"] for line in requests_logged)
    assert not any(line["level"] in ("error", "critical") for line in lines)


def test_metrics_count_jobs_and_requests(new_service: NewService) -> None:
    service = new_service()
    service.admin.run(queue_name="counted")
    service.admin.run("false", queue_name="counted")
    job = service.admin.submit("echo begun; sleep 60", queue_name="counted")
    wait_until(lambda: service.admin.log(job) == b"begun\n", 20, "it has begun")
    service.admin.cancel(job)
    for path in ("/metrics", "/api/v1/metrics"):
        answer = service.anonymous().request("GET", path)
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert samples["reactorcide_jobs_ended_total", "completed", "counted"] == 1
        assert samples["reactorcide_jobs_ended_total", "counted", "failed"] == 1
        assert samples["reactorcide_jobs", "cancelled", "counted"] == 1
        assert samples["reactorcide_job_wait_seconds_count", "counted"] == 3
        assert samples["reactorcide_http_requests_total", "/api/v1/jobs", "201", "POST"] == 3


def test_queue_depth_equals_the_number_of_waiting_jobs(idle_service: Service) -> None:
    for _ in range(3):
        idle_service.admin.submit(queue_name="deep")
    metrics = idle_service.anonymous().request("GET", "/metrics").text
    assert 'reactorcide_queue_depth{queue="deep"} 3.0' in metrics


def test_follower_slots_are_limited(new_service: NewService) -> None:
    service = new_service(concurrency=0, stream_slots=1)
    api, job = service.admin, service.admin.submit()
    logs = f"jobs/{job['job_id']}/logs"
    with api.follow(job):
        refused = api.request("GET", logs, params={"follow": "true"})
        assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        # A wait that finds no place answers at once; 30 s would be over the test's patience below.
        assert api.job(job, wait=30)["status"] == "queued"
        assert api.log(job) == b""

    def place_is_free() -> bool:
        with api.request("GET", logs, params={"follow": "true"}, stream=True) as response:
            return response.status_code == 200

    wait_until(place_is_free, 5, "a follower that hung up has given its place back")


def test_without_slots_followers_are_refused(new_service: NewService) -> None:
    api = new_service(concurrency=0, stream_slots=0).admin
    job = api.submit()
    assert api.request("GET", f"jobs/{job['job_id']}/logs", params={"follow": "true"}).status_code == 503
    assert api.job(job, wait=30)["status"] == "queued"
