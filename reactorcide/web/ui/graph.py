"""Layout of a run's graph: a column for each depth, and edges from what a node needs."""

from collections.abc import Mapping, Sequence
from typing import Any

from reactorcide.lib.records import record

_NODE_WIDTH = 196
_MIN_NODE_WIDTH = 90
_SIGN_WIDTH = 40
_CHAR_WIDTH = 9
_MANY_COLUMNS = 5
"""With so many, all are a little narrower, so that more of them are on the page."""
_MAX_ROOMY_ROWS = 12
"""A graph with longer columns has lower nodes."""
_MARGIN = 8
_SWEEPS = 4
"""How often the order in the columns is improved."""

Json = Mapping[str, Any]


@record
class Box:
    """A node at its place, in pixels."""

    node: Json
    x: int
    y: int
    width: int

    @property
    def name_chars(self) -> int:
        """How much of its name has space in it."""
        return (self.width - _SIGN_WIDTH) // _CHAR_WIDTH


@record
class Graph:
    """A run's nodes and edges; an edge is the path of an SVG."""

    boxes: Sequence[Box]
    edges: Sequence[str]
    width: int
    height: int
    node_height: int
    is_compact: bool


def layout(nodes: Sequence[Json]) -> Graph:
    """Return the graph of nodes, each of which comes after those that it needs.

    An edge is left out where another way leads from the one to the other.
    """
    of_job: dict[str, list[int]] = {}
    needs: dict[str, list[str]] = {}
    for index, node in enumerate(nodes):
        of_job.setdefault(node["job"], []).append(index)
        needs[node["job"]] = list(node["needs"])
    depth: dict[str, int] = {}
    above: dict[str, set[str]] = {}
    for job, needed in needs.items():
        placed = [name for name in needed if name in depth]
        depth[job] = 1 + max((depth[name] for name in placed), default=-1)
        above[job] = set(placed).union(*(above[name] for name in placed))
    direct = {
        job: [
            name
            for name in needed
            if name in depth and not any(name in above[o] for o in needed if o in above)
        ]
        for job, needed in needs.items()
    }
    before = [[at for name in direct[node["job"]] for at in of_job[name]] for node in nodes]
    columns: list[list[int]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for index, node in enumerate(nodes):
        columns[depth[node["job"]]].append(index)
    row = _rows(columns, before)
    rows = max(map(len, columns), default=1)
    is_compact = rows > _MAX_ROOMY_ROWS
    node_height, row_gap = (26, 6) if is_compact else (42, 12)
    widths = [
        _column_width([nodes[at]["name"] for at in column], len(columns), is_compact) for column in columns
    ]
    gap = 64 if len(columns) < _MANY_COLUMNS else 44
    boxes = []
    for index, node in enumerate(nodes):
        column = depth[node["job"]]
        # A short column stands in the middle beside a long one.
        top = (rows - len(columns[column])) / 2
        boxes.append(
            Box(
                node,
                _MARGIN + sum(widths[:column]) + column * gap,
                _MARGIN + round((top + row[index]) * (node_height + row_gap)),
                widths[column],
            )
        )
    edges = [
        _edge(boxes[start], boxes[end], node_height, gap)
        for end, starts in enumerate(before)
        for start in starts
    ]
    return Graph(
        boxes,
        edges,
        2 * _MARGIN + sum(widths) + (len(columns) - 1) * gap,
        2 * _MARGIN + rows * (node_height + row_gap) - row_gap,
        node_height,
        is_compact,
    )


def _rows(columns: Sequence[list[int]], before: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return each node's row in its column, near the middle of its neighbours, so that few edges cross."""
    after: dict[int, list[int]] = {}
    for end, starts in enumerate(before):
        for start in starts:
            after.setdefault(start, []).append(end)
    row = {index: place for column in columns for place, index in enumerate(column)}

    def middle(index: int, neighbours: Sequence[int]) -> float:
        return sum(row[at] for at in neighbours) / len(neighbours) if neighbours else row[index]

    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        for column in columns if forwards else columns[::-1]:
            column.sort(key=lambda index: middle(index, before[index] if forwards else after.get(index, ())))
            row.update({index: place for place, index in enumerate(column)})
    return row


def _column_width(names: Sequence[str], columns: int, is_compact: bool) -> int:
    """Return the width of the nodes of a column: in a compact graph their names are all that is in them."""
    if is_compact:
        longest = max(map(len, names), default=0)
        return min(max(_SIGN_WIDTH + _CHAR_WIDTH * longest, _MIN_NODE_WIDTH), _NODE_WIDTH)
    return _NODE_WIDTH if columns < _MANY_COLUMNS else _NODE_WIDTH - 16


def _edge(start: Box, end: Box, node_height: int, gap: int) -> str:
    x1, y1 = start.x + start.width, start.y + node_height // 2
    x2, y2 = end.x, end.y + node_height // 2
    bend = x2 - gap // 2
    return f"M{x1} {y1} L{x2 - gap} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}"
