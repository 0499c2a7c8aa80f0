"""One process that works for long."""
