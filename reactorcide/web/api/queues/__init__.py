"""Queues: routes and their schemas."""
