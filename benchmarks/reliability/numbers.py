"""Numbers at their ends."""
