"""How long others have been silent."""

from collections.abc import Mapping

import pytest

from reactorcide.lib.silence import Silence


class Ear:
    """A ``Silence`` with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silence: Silence[str] = Silence(lambda: self.now)

    def after(self, seconds: float, beats: Mapping[str, object]) -> dict[str, float]:
        """Look again after a time."""
        self.now += seconds
        return self.silence.look(lambda: beats)


def test_only_a_beat_that_stays_the_same_is_silence() -> None:
    ear = Ear()
    assert ear.after(5, {"a": 1, "b": 1}) == {"a": 0, "b": 0}
    assert ear.after(5, {"a": 1, "b": 0}) == {"a": 5, "b": 0}
    assert ear.after(5, {"a": 1, "c": 0}) == {"a": 10, "c": 0}
    # One that was gone begins anew.
    assert ear.after(5, {"b": 0}) == {"b": 0}


def test_time_in_which_nobody_is_heard_of_does_not_count() -> None:
    ear = Ear()
    ear.after(0, {"a": 1})

    def fails() -> Mapping[str, object]:
        raise ValueError("away")

    with pytest.raises(ValueError, match="away"):
        ear.silence.look(fails)
    assert ear.after(60, {"a": 1}) == {"a": 0}
    assert ear.after(5, {"a": 1}) == {"a": 5}
