"""What can be done with named secrets: one file a use case."""
