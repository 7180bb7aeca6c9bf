"""The wheel's files, and the files in deploy/, as far as this machine can check them without running them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reactorcide.settings import all_settings, option_name
from tests.deploy.conftest import DEPLOY, ROOT


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
