"""The commands of docs/tutorial.md run, and print what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import NewService

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
_DEADLINE_S = 280


def blocks() -> list[tuple[str, str]]:
    """Return each block of commands, and what it prints, if the tutorial says it."""
    text = TUTORIAL.read_text(encoding="utf-8")
    return re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)


def test_tutorial_commands_print_the_documented_output(new_service: NewService, tmp_path: Path) -> None:
    directory = tmp_path / "ci-tutorial"
    directory.mkdir()
    service = new_service(source_root=directory, concurrency=2)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "REACTORCIDE_DATA_DIR": str(service.data_dir),
    }
    script = "set -eu\n" + "\n".join(f"{commands}\necho '--- end'\n" for commands, _ in blocks())
    finished = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_DEADLINE_S,
    )
    assert finished.returncode == 0, finished.stdout
    outputs = finished.stdout.split("--- end\n")
    assert len(outputs) == len(blocks()) + 1
    for (commands, expected), output in zip(blocks(), outputs, strict=False):
        rest = output
        for line in expected.splitlines():
            assert line in rest, f"{commands}\nprinted:\n{output}"
            rest = rest.split(line, 1)[1]
