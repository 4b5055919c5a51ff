"""Digest to DAG: which peers hold a blob, how large it is, and under which root its blocks go."""
