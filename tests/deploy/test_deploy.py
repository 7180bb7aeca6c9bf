"""The wheel, and the files in deploy/, as far as this machine can try them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import requests
from ruamel.yaml import YAML

from reactorcide.settings import all_settings, option_name
from tests.conftest import NewService
from tests.support.service import PROGRAM, Service
from tests.support.waiting import wait_until

ROOT = PROGRAM.parent
DEPLOY = ROOT / "deploy"
SBIN = f"{os.environ['PATH']}:/usr/sbin"
NGINX = shutil.which("nginx", path=SBIN)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this checkout installs."""
    directory = tmp_path_factory.mktemp("wheel")
    source, installed = directory / "source", directory / "installed"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "reactorcide", source / "reactorcide", ignore=without)
    script = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, directory], cwd=source, check=True, capture_output=True)
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)  # our own
    return installed


def test_the_wheel_has_every_file_of_the_package(unpacked: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "reactorcide"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert "reactorcide/web/ui/templates/base.html" in tracked
    assert [name for name in tracked if not (unpacked / name).is_file()] == []
    [entry_points] = unpacked.glob("*.dist-info/entry_points.txt")
    assert "reactorcide = reactorcide.cli:main" in entry_points.read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def installed_service(
    unpacked: Path, tmp_path: Path, new_service: NewService, monkeypatch: pytest.MonkeyPatch
) -> tuple[Service, int]:
    """A service of the wheel, started as systemd does; and the port of its public URL."""
    launcher = unpacked / "launch.py"
    launcher.write_text(
        "import reactorcide\n"
        "from reactorcide.cli import main\n"
        f"assert reactorcide.__file__.startswith({str(unpacked)!r}), reactorcide.__file__\n"
        "main()\n"
    )
    monkeypatch.setattr("tests.support.service.PROGRAM", launcher)
    port = free_port()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(10)
        service = new_service(
            {"NOTIFY_SOCKET": str(tmp_path / "notify")},
            public_url=f"http://127.0.0.1:{port}/ci",
            trusted_proxy="127.0.0.1",
        )
        assert told.recv(1000) == b"READY=1"
        # Not before it listened, as gunicorn does it.
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(1000)
    return service, port


@pytest.mark.skipif(NGINX is None, reason="there is no nginx")
def test_an_installed_wheel_works_behind_nginx(
    installed_service: tuple[Service, int], tmp_path: Path
) -> None:
    service, port = installed_service
    site = (DEPLOY / "nginx.conf").read_text()
    site = re.sub(r"\n *ssl_certificate.*", "", site).replace("443 ssl", f"127.0.0.1:{port}")
    site = site.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    places += "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("uwsgi", "scgi"))
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;"
        f"events {{}} http {{ access_log off; {places} {site} }}"
    )
    command = [str(NGINX), "-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c", str(configuration)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as nginx:
        try:
            below = f"http://127.0.0.1:{port}/ci"
            wait_until(lambda: _status(f"{below}/api/v1/health") == 200, 20, "nginx passes requests on")
            page = requests.get(f"http://127.0.0.1:{port}/ci", timeout=10)
            assert page.url.startswith(f"{below}/")
            assert (page.status_code, "Sign in" in page.text) == (401, True)
            files = re.findall(r'(?:href|src)="(/[^"]*static/[^"]*)"', page.text)
            assert files
            for path in files:
                assert path.startswith("/ci/")
                assert _status(f"http://127.0.0.1:{port}{path}") == 200
            assert _status(f"{below}/api/v1/openapi.json") == 200

            api = service.admin
            # A log arrives line by line, though its job has not ended.
            job = api.submit("echo begun; while [ ! -e /tmp/never ]; do sleep 0.1; done")
            headers = {"Authorization": f"Bearer {api.token}"}
            url = f"{below}/api/v1/jobs/{job['job_id']}/logs?follow=true"
            try:
                with requests.get(url, headers=headers, stream=True, timeout=30) as log:
                    assert next(log.iter_content(1000)) == b"begun\n"
            finally:
                api.cancel(job)
                api.wait(job)
        finally:
            nginx.terminate()
            nginx.wait(10)


def _status(url: str) -> int | None:
    try:
        return requests.get(url, timeout=10).status_code
    except requests.ConnectionError:
        return None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_accepts_the_unit_and_rates_it_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "reactorcide.service"
    text = (DEPLOY / "reactorcide.service").read_text()
    assert text.count("/opt/reactorcide/bin/reactorcide") == 1
    unit.write_text(text.replace("/opt/reactorcide/bin/reactorcide", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    # Of 100; 20 and less is what systemd calls safe.
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        check=True,
        capture_output=True,
    )


def test_files_named_in_deploy_exist() -> None:
    options = {option_name(setting) for setting in all_settings()}
    variables = {f"REACTORCIDE_{name.upper().replace('-', '_')}" for name in options}
    for file in DEPLOY.iterdir():
        text = file.read_text()
        assert set(re.findall(r"REACTORCIDE_[A-Z_]+", text)) <= variables, file
        if file.name in ("Caddyfile", "nginx.conf", "reactorcide.service"):
            assert {name for name in re.findall(r"--([a-z-]+)", text)} <= options, file
    service = YAML(typ="safe").load(DEPLOY / "compose.yaml")["services"]["service"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    user, entry = re.findall(r"^(?:USER|ENTRYPOINT) (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert (user, entry) == ("reactorcide", '["reactorcide"]')
