"""Chunks: where speech is cut for an engine, and how what it says is put together again at the seams."""

from dawnchorus.chunking.chunker import FRAME_SAMPLES, Chunker, ChunkParams, chunk_params
from dawnchorus.chunking.seams import join_at_seam, join_seams, owned
from dawnchorus.chunking.stream import ChunkStream, Detector, Stream

__all__ = [
    "FRAME_SAMPLES",
    "ChunkParams",
    "ChunkStream",
    "Chunker",
    "Detector",
    "Stream",
    "chunk_params",
    "join_at_seam",
    "join_seams",
    "owned",
]
