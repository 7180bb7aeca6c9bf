"""The schema of the page that shows the API."""

from pydantic import BaseModel


class AssetPath(BaseModel):
    """Which part of the page that shows the API."""

    name: str
