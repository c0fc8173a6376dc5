"""Benchmarks: suites of methods, datasets, shots and seeds, their results, tables and plots."""
