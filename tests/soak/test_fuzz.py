"""Schemathesis with thousands of cases, new ones each time."""

import random
from pathlib import Path

from tests.conftest import NewService
from tests.support.fuzz import fuzz


def test_thousands_of_fuzz_cases_conform(new_service: NewService, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    assert fuzz(new_service(concurrency=0), tmp_path, max_examples=300, seed=seed) >= 3000
