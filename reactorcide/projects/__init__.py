"""What can be done with projects: one file a use case."""
