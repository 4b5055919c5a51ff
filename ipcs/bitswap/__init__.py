"""Bitswap: a pure engine, and the trio shell that feeds it."""
