"""Reading the model's answers: token ids (or text) to shapes, outcomes and flags. decoder.py is the way through; the other modules are its steps."""

from model.decoding.claims import FLAGS, GEOMETRIES, Flag
from model.decoding.decoder import (
    DECODER_VERSION,
    OUTCOMES,
    STATUSES,
    Answer,
    Decoded,
    Shapes,
    TextAnswer,
    decode,
    decode_text,
)

__all__ = [
    "DECODER_VERSION",
    "FLAGS",
    "GEOMETRIES",
    "OUTCOMES",
    "STATUSES",
    "Answer",
    "Decoded",
    "Flag",
    "Shapes",
    "TextAnswer",
    "decode",
    "decode_text",
]
