"""Use cases of deliveries, which forges send: one file for each."""
