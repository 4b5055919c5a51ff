"""Coverage-guided fuzzing: targets, their corpora, and one runner for all of them (`python -m tests.fuzz --help`)."""
