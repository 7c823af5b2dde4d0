"""A SALM small enough for tests: its builder (random weights), its trainer, and the trained checkpoint."""
