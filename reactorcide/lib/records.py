"""Immutable classes of fields."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, kw_only: bool = ...) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T] | None = None, /, *, kw_only: bool = False) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class a dataclass with slots whose fields are not assigned to.

    The type checker, and nothing at run time, refuses assignments. ``dataclasses`` compiles each method anew
    for each class, which takes a quarter of the program's start; here only ``__init__`` is.
    """
    if cls is None:
        return lambda cls: _record(cls, kw_only=kw_only)
    return _record(cls, kw_only=kw_only)


def _record(cls: type[T], *, kw_only: bool) -> type[T]:
    made: Any = dataclass(slots=True, repr=False, eq=False, kw_only=kw_only)(cls)
    compared = [item.name for item in fields(made) if item.compare]
    made.__record_values__ = staticmethod(attrgetter(*compared) if compared else lambda _: ())
    for name, method in (("__eq__", _eq), ("__hash__", _hash), ("__repr__", _repr)):
        if name not in cls.__dict__:
            setattr(made, name, method)
    return made  # type: ignore[no-any-return]  # the class, with more methods


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is self.__class__:
        return self.__record_values__(self) == self.__record_values__(other)
    return NotImplemented


def _hash(self: Any) -> int:
    return hash(self.__record_values__(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr)
    return f"{type(self).__qualname__}({shown})"
