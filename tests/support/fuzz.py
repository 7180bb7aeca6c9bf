"""Schemathesis against a running service, by its document."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.service import Service, clean_environment

_CONFIG = Path(__file__).resolve().parents[1] / "fuzz.toml"
_CASES = re.compile(r"(\d+) generated, (\d+) passed")


def fuzz(service: Service, home: Path, *, max_examples: int, seed: int) -> int:
    """Send every operation what the document allows and what it does not, then operations in a row.

    Fails where one check of Schemathesis does; returns the number of cases.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", _CONFIG, "run"),
            f"{service.base_url}/api/v1/openapi.json",
            *("--header", f"Authorization: Bearer {service.admin.token}"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--max-examples", str(max_examples), "--seed", str(seed)),
            *("--generation-database", "none", "--continue-on-failure", "--no-color"),
            # What a thorough tool finds odd about our document is no failure of the service; nor is how long
            # a busy machine takes to think of valid data.
            *("--warnings", "off", "--suppress-health-check", "all"),
        ],
        env=clean_environment(
            home, PYTHONPATH=str(_CONFIG.parents[1]), SCHEMATHESIS_HOOKS="tests.support.fuzz_hooks"
        ),
        cwd=home,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 500 in " not in service.log_text()
    assert "Traceback" not in service.log_text()
    match = _CASES.search(done.stdout)
    assert match is not None, done.stdout
    return int(match[1])
