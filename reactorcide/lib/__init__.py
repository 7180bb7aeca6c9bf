"""What knows nothing of Reactorcide: it imports nothing else of the package."""
