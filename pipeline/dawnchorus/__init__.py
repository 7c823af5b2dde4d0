"""Dawn Chorus: a manifest of recordings in object storage becomes Parquet transcripts, exactly once.

Importing this package imports neither Ray nor any model library; see `graph.py` for the story.
"""

__version__ = "0.1.0"
