"""What can be done with webhooks: who is told of runs and jobs."""
