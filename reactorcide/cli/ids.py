"""Ids on the command line."""

from collections.abc import Callable

import click

from reactorcide.lib.ids import is_beginning_of_id


def id_of(
    kind: str, command: str, is_valid: Callable[[str], bool] = is_beginning_of_id
) -> Callable[[str], str]:
    """Return the type of an argument that is the id of a ``kind``; ``command`` lists the existing ones.

    It returns the id in lower case, and refuses other text, because an id becomes part of a URL.
    """

    def read(text: str) -> str:
        if not is_valid(text.lower()):
            raise click.BadParameter(f"{text!r} is not the id of a {kind}; '{command}' shows them")
        return text.lower()

    return read
