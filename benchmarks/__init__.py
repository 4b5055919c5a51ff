"""Benchmarks: measured beside the peers they are compared with, in one run, alternating. See README.md."""
