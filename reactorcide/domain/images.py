"""Image references as container engines write them."""

import re

_COMPONENT = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[a-z0-9]+:[0-9a-f]{32,128})?"
)


def is_image_reference(text: str) -> bool:
    """Tell whether ``text`` is ``[host[:port]/]name[:tag][@digest]``."""
    return len(text) <= 255 and _REFERENCE.fullmatch(text) is not None


def with_tag(image: str) -> str:
    """Return a reference with the tag that engines take where it names neither a tag nor a digest."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
