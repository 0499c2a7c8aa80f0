"""Measurements of a recording, which claims are held against. NumPy and SciPy only."""
