"""A run as a tree on a terminal, redrawn in place after each change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from reactorcide.cli import render
from reactorcide.lib.records import record


@record
class Branch:
    """A node of the run, as displayed."""

    job: str
    needs: Sequence[str]
    """The jobs that it needs; they come before it."""
    text: str
    style: str


Draw = Callable[[str, str, Sequence[Branch]], None]
Say = Callable[[str], None]


@contextmanager
def drawing(*, err: bool) -> Iterator[tuple[Draw, Say]]:
    """Yield a function that redraws a run in place, and one that prints lines above it, from any thread.

    The first takes the run's line, the style of the line, and its nodes. A node is below the node that it
    needs; if it needs several, below the deepest one.
    """
    with Live(console=Console(stderr=err, highlight=False), auto_refresh=False) as live:

        def draw(line: str, style: str, branches: Sequence[Branch]) -> None:
            tree = Tree(_text(line, style))
            places: dict[str, tuple[int, Tree]] = {}
            for branch in branches:
                above = [places[job] for job in branch.needs]
                depth, place = max(above, key=lambda item: item[0], default=(0, tree))
                places[branch.job] = depth + 1, place.add(_text(branch.text, branch.style))
            live.update(tree, refresh=True)

        def say(text: str) -> None:
            lines = "\n".join(map(render.printable, text.split("\n")))
            live.console.print(Text(lines), soft_wrap=True)

        yield draw, say


def _text(text: str, style: str) -> Text:
    return Text(render.printable(text), style=style, no_wrap=True, overflow="ellipsis")
