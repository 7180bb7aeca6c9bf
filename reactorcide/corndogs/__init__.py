"""Corndogs, the task queue: its client, and a server of our own that speaks the same protocol."""
