"""Audio: bytes of any common format -> mono int16 channels at the engine's rate, decoded in a sandbox.

`Decoder` is the door; see `decoder.py`. What it does not know: where the bytes came from, and speech.
"""

from dawnchorus.audio.decoder import AudioInfo, Decoder, Stream
from dawnchorus.audio.wire import Block

__all__ = ["AudioInfo", "Block", "Decoder", "Stream"]
