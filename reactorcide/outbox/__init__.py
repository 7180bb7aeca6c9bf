"""The outbox: messages to other hosts, written in the transaction that changes a run, and sent until they
arrive."""
