"""Runs: routes and their schemas."""
