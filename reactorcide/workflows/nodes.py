"""YAML 1.2 as a tree of values with their places; scalars stay as they are written.

Anchors are shared, not copied, and what they expand to is counted while the file is read, so that a small
file cannot become a large one. Reading stops at the first error in the syntax, and at a bound.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from reactorcide.workflows.problems import Place, Problems

MAX_FILE_BYTES = 256 << 10
MAX_VALUES = 10_000
"""Keys and values of one file, anchors expanded."""
MAX_EXPANDED_CHARS = 1 << 20
"""Characters of one file, anchors expanded."""
MAX_DEPTH = 32

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(slots=True, eq=False)
class Scalar:
    """A text, a number, a boolean or nothing: what it is, is decided by whoever reads it."""

    place: Place
    text: str
    is_plain: bool = False
    """Written without quotes, so that it may be a number, a boolean or nothing."""

    @property
    def is_null(self) -> bool:
        """Return whether nothing is written there."""
        return self.is_plain and self.text in _NULLS

    @property
    def values(self) -> int:
        """One."""
        return 1

    @property
    def chars(self) -> int:
        """The length of its text."""
        return len(self.text)

    def mentions(self, text: str) -> bool:
        """Return whether ``text`` stands in it."""
        return text in self.text


@dataclass(slots=True, eq=False)
class Sequence:
    """A list."""

    place: Place
    items: list["Node"] = field(default_factory=list)
    values: int = 1
    chars: int = 0

    def mentions(self, text: str) -> bool:
        """Return whether ``text`` stands in one of its values."""
        return any(item.mentions(text) for item in self.items)


@dataclass(slots=True, eq=False)
class Mapping:
    """Keys and values, in the order of the file; each key once."""

    place: Place
    entries: dict[str, tuple[Scalar, "Node"]] = field(default_factory=dict)
    values: int = 1
    chars: int = 0

    def mentions(self, text: str) -> bool:
        """Return whether ``text`` stands in one of its values."""
        return any(value.mentions(text) for _, value in self.entries.values())

    def __iter__(self) -> Iterator[tuple[str, Scalar, "Node"]]:
        return ((name, key, value) for name, (key, value) in self.entries.items())


Node = Scalar | Sequence | Mapping


class Stop(Exception):
    """Reading cannot go on; the error is recorded."""


def compose(file: str, content: str | bytes, problems: Problems) -> Node | None:
    """Return the tree of a YAML file; ``None`` with an error in ``problems`` if there is none.

    Costs time and memory linear in ``content``, of which ``MAX_FILE_BYTES`` are read at most.
    """
    # Imported late: a service that has read no file does without the library.
    from reactorcide.workflows.composer import Composer

    try:
        return Composer(file, problems).compose(_decoded(file, content, problems))
    except Stop:
        return None


def _decoded(file: str, content: str | bytes, problems: Problems) -> str:
    size_bytes = len(content) if isinstance(content, bytes) else len(content.encode(errors="surrogatepass"))
    if size_bytes > MAX_FILE_BYTES:
        # How much larger is not known of a file that was read up to the bound.
        problems.error(Place(file), f"the file is larger than {MAX_FILE_BYTES >> 10} KiB")
        raise Stop
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        column = exc.start - content.rfind(b"\n", 0, exc.start)
        problems.error(Place(file, line, column), "the file is not UTF-8 from here on; save it as UTF-8")
        raise Stop from exc
