"""The wheel's files, and the files in deploy/, as far as this machine can check them without running them."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from reactorcide.cli.root import cli
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
@pytest.mark.parametrize("name", ["reactorcide.service", "reactorcide-worker.service"])
def test_systemd_accepts_a_unit_and_rates_it_hardened(name: str, tmp_path: Path) -> None:
    unit = tmp_path / name
    text = (DEPLOY / name).read_text()
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
    # What the program is told by its arguments and its variables exists.
    (command,) = re.findall(r"^ExecStart=/opt/reactorcide/bin/reactorcide (\w+)(.*)$", text, re.MULTILINE)
    assert names_of(command[0]) >= set(re.findall(r"--[a-z-]+", command[1]))
    assert names_of(command[0]) >= set(re.findall(r"REACTORCIDE_[A-Z_]+", text))


def names_of(command: str) -> set[str]:
    """Return the options and the variables of a command."""
    context = click.Context(cli)
    found = cli.get_command(context, command)
    assert found is not None
    names = set()
    for parameter in found.params:
        names |= {*parameter.opts, f"REACTORCIDE_{(parameter.name or '').upper()}"}
        names |= {parameter.envvar} if isinstance(parameter.envvar, str) else set(parameter.envvar or ())
    return names


def test_options_and_variables_in_deploy_exist() -> None:
    known = names_of("serve") | names_of("worker")
    for file in DEPLOY.iterdir():
        text = file.read_text()
        assert set(re.findall(r"REACTORCIDE_[A-Z_]+", text)) <= known, file
        if file.name in ("Caddyfile", "nginx.conf"):
            assert set(re.findall(r"--[a-z-]+", text)) <= known, file
    for name in ("compose.yaml", "compose.scale.yaml"):
        for service in YAML(typ="safe").load(DEPLOY / name)["services"].values():
            if isinstance(words := service.get("command"), list):
                options = {word for word in words[1:] if word.startswith("--")}
                assert options <= names_of(words[0]), name
            if "build" in service:
                assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    user, entry = re.findall(r"^(?:USER|ENTRYPOINT) (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert (user, entry) == ("reactorcide", '["reactorcide"]')
