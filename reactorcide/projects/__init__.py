"""Use cases of projects, one file for each."""
