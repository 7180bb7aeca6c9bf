"""The service with a certificate of its own."""

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import ended_cleanly
from tests.support.certificate import Certificate, make_certificate
from tests.support.image import Images
from tests.support.service import PROGRAM, Service, clean_environment, command_line
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory,
    engine: docker.APIClient,
    images: Images,
    certificate: Certificate,
) -> Iterator[Service]:
    """A service that speaks TLS and has room for one follower."""
    service = Service(
        tmp_path_factory.mktemp("secure"),
        images.default,
        concurrency=1,
        cancel_grace=1,
        stream_slots=1,
        log_format="json",
        tls_cert=certificate.cert,
        tls_key=certificate.key,
    )
    yield from ended_cleanly(service.start(), engine)


def handshake(service: Service, certificate: Certificate, version: ssl.TLSVersion) -> str | None:
    """Return the version of TLS that a client gets that speaks no other than ``version``."""
    context = ssl.create_default_context(cafile=str(certificate.cert))
    # So that this side does not refuse an old version before the service can.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return secured.version()


def test_a_job_is_submitted_followed_and_read_over_tls(secure: Service) -> None:
    assert secure.base_url.startswith("https://")
    job = secure.admin.submit("for i in 1 2 3; do echo $i; sleep 0.1; done; echo kept >/job/artifacts/file")
    with secure.admin.follow(job) as lines:
        assert list(lines) == [b"1", b"2", b"3"]
    assert secure.admin.wait(job)["status"] == "completed"
    assert secure.admin.request("GET", f"jobs/{job['job_id']}/artifacts/file").content == b"kept\n"


def test_disconnected_follower_frees_its_slot(secure: Service) -> None:
    job = secure.admin.submit("echo begun; sleep 30")
    with secure.admin.follow(job) as lines:
        assert next(lines) == b"begun"
    # It is a new connection's turn: that one was closed by its client.
    path = f"jobs/{job['job_id']}/logs"

    def is_free() -> bool:
        with secure.admin.request("GET", path, params={"follow": "true"}, stream=True) as response:
            return response.status_code == 200

    wait_until(is_free, 10, "the place is free again although the job prints nothing")
    secure.admin.cancel(job)
    secure.admin.wait(job)


def test_command_line_uses_the_ca_bundle_variables(secure: Service, tmp_path: Path) -> None:
    environment = clean_environment(
        tmp_path, REACTORCIDE_API_URL=secure.base_url, REACTORCIDE_API_TOKEN=secure.admin.token or ""
    )

    def submit(**extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAM), "submit", "hello", "--follow", "--", "echo over TLS"],
            env=environment | extra,
            capture_output=True,
            text=True,
            timeout=60,
        )

    refused = submit()
    assert (refused.returncode, "certificate" in refused.stderr) == (1, True)
    done = submit(REQUESTS_CA_BUNDLE=str(secure.options["tls_cert"]))
    assert (done.returncode, done.stdout) == (0, "over TLS\n"), done.stderr


def test_the_socket_for_the_command_line_speaks_http(secure: Service) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "submit", "hello", "--follow", "--", "echo over the socket"],
        env=clean_environment(secure.home, REACTORCIDE_DATA_DIR=str(secure.data_dir)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "over the socket\n"), done.stderr


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_accepted(
    secure: Service, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    assert handshake(secure, certificate, version) == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # asking for an old version is the point
@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
def test_older_tls_versions_are_refused(secure: Service, certificate: Certificate, name: str) -> None:
    # The alert is the other side's: it is not this one that will not.
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        handshake(secure, certificate, ssl.TLSVersion[name])


def test_plain_http_is_not_answered(secure: Service) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plain:
        plain.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            answer = plain.recv(4096)
        except ConnectionResetError:
            answer = b""
    assert answer == b""


def test_a_renewed_certificate_is_used_at_once(
    secure: Service, certificate: Certificate, tmp_path: Path
) -> None:
    old = (certificate.cert.read_bytes(), certificate.key.read_bytes())
    renewed = make_certificate(tmp_path)
    shutil.copy(renewed.key, certificate.key)
    shutil.copy(renewed.cert, certificate.cert)
    try:
        assert handshake(secure, renewed, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    finally:
        certificate.cert.write_bytes(old[0])
        certificate.key.write_bytes(old[1])


@pytest.mark.parametrize("fault", ["no key", "no certificate", "other key", "passphrase", "missing"])
def test_an_unusable_certificate_ends_the_start_with_an_error(tmp_path: Path, fault: str) -> None:
    own = make_certificate(tmp_path, passphrase="secret" if fault == "passphrase" else None)
    options: dict[str, object] = {"data_dir": tmp_path / "data", "port": 0}
    if fault != "no certificate":
        options["tls_cert"] = tmp_path / "nothing" if fault == "missing" else own.cert
    if fault != "no key":
        options["tls_key"] = make_certificate(tmp_path, "other").key if fault == "other key" else own.key
    done = subprocess.run(
        command_line("serve", options),
        env=clean_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("reactorcide: ")
    assert "--tls-cert" in done.stderr
    assert "--tls-key" in done.stderr
    assert "Traceback" not in done.stderr
