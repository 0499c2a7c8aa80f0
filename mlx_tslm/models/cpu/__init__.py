"""What only CPUs need, and a GPU never runs."""
