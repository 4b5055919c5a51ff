"""Blocks on disk and in memory, and everything that keeps them there or lets them go."""
