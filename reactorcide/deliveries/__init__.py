"""What can be done with the deliveries of forges: one file a use case."""
