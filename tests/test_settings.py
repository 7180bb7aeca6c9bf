"""The table of settings is what the command line takes and what the documentation says."""

import configparser
import re
from pathlib import Path

from click.testing import CliRunner

from reactorcide import __version__
from reactorcide.cli.serve import serve
from reactorcide.settings import Settings, all_settings, default_text, option_name
from tests.support.reference import table

ROOT = Path(__file__).parent.parent


def documented() -> dict[str, str]:
    """Return the options of the reference's table of settings, with what stands beside them."""
    return {re.findall("`--([a-z-]+)", cells[0])[0]: cells[1] for cells in table("Settings")}


def test_every_setting_is_in_the_documentation_and_nothing_else_is() -> None:
    assert set(documented()) == {option_name(setting) for setting in all_settings()}


def test_every_setting_is_an_option_of_serve_with_help() -> None:
    text = CliRunner().invoke(serve, ["--help"]).output
    for setting in all_settings():
        assert f"--{option_name(setting)} " in text
        assert setting.metadata["help"]


def test_documented_defaults_are_the_defaults() -> None:
    defaults = documented()
    for setting in all_settings():
        default = default_text(setting)
        if default is not None:
            assert f"`{default}`" in defaults[option_name(setting)], setting.name


def test_size_is_parsed_to_bytes() -> None:
    (setting,) = (setting for setting in all_settings() if setting.name == "max_disk_bytes")
    assert default_text(setting) == "10g"
    assert Settings().max_disk_bytes == 10 << 30


def test_defaults_are_complete() -> None:
    settings = Settings()
    assert settings.concurrency >= 1
    assert settings.source_roots == ()
    assert settings.database_path.parent == settings.data_dir


def test_package_version_matches_the_metadata() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == __version__
    assert f"\n## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
