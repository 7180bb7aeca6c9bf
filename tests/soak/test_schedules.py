"""Schedules of two services, one of them killed where ``several/test_schedules.py`` does not kill it."""

from pathlib import Path

import pytest

from tests.several import test_schedules
from tests.several.conftest import House, corndogs, house  # noqa: F401  # fixtures


@pytest.mark.parametrize("point", ["schedule-due", "run-committed"])
def test_the_other_one_starts_what_the_killed_one_has_not(
    point: str,
    house: House,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    test_schedules.test_the_other_one_starts_what_the_killed_one_has_not(point, house, tmp_path)
