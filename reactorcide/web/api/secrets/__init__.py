"""Named secrets: routes and their schemas."""
