"""The wire contract and what protoc makes of it."""
