"""Use cases of named secrets, one file for each."""
