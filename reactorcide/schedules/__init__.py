"""What can be done with schedules: one file a use case."""
