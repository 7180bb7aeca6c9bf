"""Use cases of webhooks, which get messages about runs and jobs."""
