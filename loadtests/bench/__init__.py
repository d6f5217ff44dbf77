"""Benchmarks: each prints what it measured, and on what."""
