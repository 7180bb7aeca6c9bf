"""What is owed to others: written in the transaction that changes a run, and sent until it has arrived."""
