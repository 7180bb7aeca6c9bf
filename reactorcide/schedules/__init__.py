"""Use cases of schedules, one file for each."""
