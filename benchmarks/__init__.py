<<<<<<< HEAD
"""Benchmarks: measured beside the peers they are compared with, in one run, alternating. See README.md."""
=======
"""Measurements; README.md says how they are made and how to read them."""
>>>>>>> main
