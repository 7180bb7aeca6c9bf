"""Jobs: routes and their schemas."""
