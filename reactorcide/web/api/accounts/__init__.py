"""Users, tokens, invitations and the audit: routes and their schemas."""
