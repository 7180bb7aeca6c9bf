"""The calls of workers on other machines: routes and their schemas."""
