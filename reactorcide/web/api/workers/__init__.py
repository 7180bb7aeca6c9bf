"""Workers: routes and their schemas."""
