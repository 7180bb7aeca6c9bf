"""Schedules: routes and their schemas."""
