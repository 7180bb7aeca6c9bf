"""Webhooks: routes and their schemas."""
