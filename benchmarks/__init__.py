"""Measurements; README.md says how they are made and how to read them."""
