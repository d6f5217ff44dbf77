"""What an alert stands on: gathered from the history, explained, exported, verified."""
