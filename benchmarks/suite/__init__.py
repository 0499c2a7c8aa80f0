"""Benchmarks: raw samples in JSON lines, and the tables that are made from nothing else."""
