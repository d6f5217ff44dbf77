"""The roles: each consumes a topic and owns its effects."""
