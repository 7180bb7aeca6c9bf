"""Deliveries of forges: routes and their schemas."""
