"""The OpenAPI document: routes and their schemas."""
