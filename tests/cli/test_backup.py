"""``reactorcide backup`` and ``reactorcide restore``, as far as they refuse."""

from pathlib import Path

from tests.cli.conftest import Program


def test_failures_are_clear_errors(lone: Program, tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    assert "--data-dir" in lone.refused("backup", file)
    assert str(file) in lone.refused("restore", file)
    assert list(tmp_path.iterdir()) == []
    file.write_bytes(b"something else")
    assert "not a backup" in lone.refused("restore", file)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    assert "not empty" in lone.refused("restore", file)


def test_wrong_usage_exits_with_2(lone: Program, tmp_path: Path) -> None:
    assert lone("backup").code == 2
    assert lone("restore", tmp_path).code == 2
