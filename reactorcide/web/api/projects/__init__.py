"""Projects: routes and their schemas."""
