"""Immutable classes of fields, compared with what ``dataclasses`` makes."""

import copy
import pickle
from dataclasses import asdict, dataclass, field, fields, replace

import pytest

from reactorcide.lib.records import record


@record
class Point:
    """A point."""

    x: int
    y: int = 2
    secret: str = field(default="s", repr=False)
    note: list[str] = field(default_factory=list, compare=False)


@record(kw_only=True)
class Named(Point):
    """A point with a name."""

    name: str


@dataclass(frozen=True, slots=True)
class Standard:
    """The same by ``dataclasses``."""

    x: int
    y: int = 2
    secret: str = field(default="s", repr=False)
    note: list[str] = field(default_factory=list, compare=False)


@record
class Empty:
    """Nothing."""


@record
class Odd:
    """It has an equality, a hash and a text of its own."""

    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)

    def __hash__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "odd"


def test_records_are_equal_by_their_compared_fields() -> None:
    assert Point(1) == Point(1, note=["other"])
    assert hash(Point(1)) == hash(Point(1, note=["other"]))
    assert Point(1) != Point(2)
    assert Point(1) != Point(1, secret="t")  # not one
    assert Point(1) != object()
    assert Point(1) != Named(1, name="a")
    assert Named(1, name="a") == Named(1, name="a")
    assert Named(1, name="a") != Named(1, name="b")
    assert Empty() == Empty()
    assert len({Point(1), Point(1), Point(2), Empty(), Empty()}) == 3


def test_text_is_that_of_dataclasses() -> None:
    assert repr(Point(1, note=["a"])) == repr(Standard(1, note=["a"])).replace("Standard", "Point")
    assert repr(Named(1, name="a")) == "Named(x=1, y=2, note=[], name='a')"
    assert repr(Empty()) == "Empty()"


def test_methods_of_the_class_itself_stay() -> None:
    assert (Odd(1) == Odd(2), hash(Odd(1)), repr(Odd(1))) == (True, 7, "odd")


def test_functions_for_dataclasses_take_them() -> None:
    assert replace(Point(1), y=3) == Point(1, 3)
    assert asdict(Point(1)) == asdict(Standard(1))
    assert [item.name for item in fields(Named)] == ["x", "y", "secret", "note", "name"]
    match Point(1, 5):
        case Point(x, y):
            assert (x, y) == (1, 5)
    for same in (copy.deepcopy(Point(1)), pickle.loads(pickle.dumps(Point(1)))):  # noqa: S301  # our own
        assert same == Point(1)


def test_there_is_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="positional"):
        Named(1, 2, "s", [], "name")  # type: ignore[call-arg]
