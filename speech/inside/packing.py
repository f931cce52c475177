"""An explanation as one compact binary answer, to be drawn by whoever gets it.

Bytes, integers little-endian:

    0   4 bytes    "LSTM"
    4   uint32     n, the length of the header, a multiple of 4
    8   n bytes    the header, one JSON object in UTF-8, filled up with spaces
    8 + n ...      the arrays, row by row, each at a multiple of 4 from here

Fields of the header:

    format         1, the version of this layout
    model, labels  the model's name, the names of the classes
    answer         the most probable class, and its "probability"
    sample_rate    in Hz; the clip lasts "seconds"
    frame_times    [first, step] in s: frame k of mel and MFCC lies at first + k * step
    step_times     the same for the steps of attention, layers and probabilities
    frequencies    [lowest, highest] in Hz, between which the mel bands lie, low ones first
    layers         for each LSTM layer its "directions" ("forward", "backward") and "units"
    attribution    the "label" of which it is, its log-odds "score", and that of silence,
                   "silence_score"; left out where the array of that name is
    note           a sentence about the clip; left out where there is nothing to say
    arrays         by name: "shape", "offset" from the end of the header, "type", and of quantized
                   ones "low" and "high"

An array of the type uint8 or uint16 with "low" and "high" stands for low + (high - low) * q / 255
or 65535; with 16 bits the equations of a cell hold within 1e-3, with 8 bits a picture is the same.
An array without them is what it is. The arrays, in their order:

    waveform                     (500, 2), lowest and highest sample of each column of the clip
    mel                          (n_frames, n_mels), power in dB
    mfcc                         (n_frames, n_mfcc), in dB
    attention                    (n_steps,), summing to one
    logits                       (n_classes,), whose softmax is the answer
    convolution.I                (n_steps of it, filters)
    layer.I.DIRECTION.NAME       (n_steps, units); NAME is input_gate, forget_gate, candidate,
                                 output_gate, cell or hidden. Step t is that of the clip also in
                                 the backward direction, where the step before is t + 1.
    layer.I.DIRECTION.order      (units,), the units by when they are active, early ones first
    probabilities                (n_steps, n_classes), had the clip fallen silent after the step;
                                 left out where it was not computed (live)
    attribution                  (n_frames, n_mels), what each cell of mel adds to the log-odds of
                                 a class, in nats; left out where it was not computed
    sound                        (n,), the bytes of a WAV file of the clip; left out where it was
                                 not asked for
"""

import json
import struct
from typing import Any, Literal

import numpy as np

from speech.formats.weights import Array
from speech.inside.attribution import Attribution
from speech.inside.explanation import Explanation
from speech.live.mic_check import wav_bytes

FORMAT = 1
_MAGIC = b"LSTM"


def contents(
    explanation: Explanation, attribution: Attribution | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header, but for "format" and "arrays", and the arrays by name, as they are."""
    header, arrays = explanation.header(), explanation.arrays()
    if attribution is not None:
        arrays["attribution"] = attribution.values
        header["attribution"] = {
            name: getattr(attribution, name) for name in ("label", "score", "silence_score")
        }
    return header, arrays


def to_dict(explanation: Explanation, attribution: Attribution | None = None) -> dict[str, Any]:
    """The same as one JSON-able object: the header's fields, and "arrays" as nested lists.

    Example:
        >>> from speech.inside.explanation import explain, open_model, read_clip
        >>> from speech.inside.packing import to_dict
        >>> model = open_model()
        >>> clip = read_clip("left.wav", model, on_note=lambda note: None)
        >>> found = to_dict(explain(model, clip))
        >>> found["answer"], len(found["arrays"]["attention"])
        ('left', 25)
    """
    header, arrays = contents(explanation, attribution)
    lists = {name: np.round(array.astype(float), 6).tolist() for name, array in arrays.items()}
    return {"format": FORMAT, **header, "arrays": lists}


def pack(
    explanation: Explanation,
    bits: Literal[8, 16] = 16,
    attribution: Attribution | None = None,
    *,
    with_sound: bool = False,
    note: str = "",
) -> bytes:
    """The explanation in the layout above; a clip of the bundled model takes 200 or 100 kB.

    Args:
        explanation: As ``explain`` gives it.
        bits: Of each number.
        attribution: As ``attribute`` gives it for the same clip.
        with_sound: Whether the clip itself is in it, as a WAV file.
        note: What the reader should know of the clip.

    Example:
        >>> from speech.inside.explanation import explain, open_model, read_clip
        >>> from speech.inside.packing import pack, unpack
        >>> model = open_model()
        >>> clip = read_clip("left.wav", model, on_note=lambda note: None)
        >>> header, arrays = unpack(pack(explain(model, clip)))
        >>> header["answer"], arrays["layer.1.backward.cell"].shape
        ('left', (25, 128))
    """
    entries: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    header, arrays = contents(explanation, attribution)
    if note:
        header["note"] = note
    if with_sound:
        sound = wav_bytes(explanation.waveform, header["sample_rate"])
        arrays["sound"] = np.frombuffer(sound, np.uint8)
    for name, array in arrays.items():
        entry, content = _quantized(array, bits)
        entries[name] = entry | {"shape": array.shape, "offset": offset}
        parts.append(content + bytes(-len(content) % 4))
        offset += len(parts[-1])
    text = json.dumps({"format": FORMAT, **header, "arrays": entries}).encode()
    text += b" " * (-len(text) % 4)
    return b"".join((_MAGIC, struct.pack("<I", len(text)), text, *parts))


def unpack(content: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of what ``pack`` made, quantized ones as float32.

    Raises:
        ValueError: Another layout.
    """
    if content[:4] != _MAGIC:
        raise ValueError(f"expected a packed explanation, got {content[:4]!r}")
    (length,) = struct.unpack_from("<I", content, 4)
    header = json.loads(content[8 : 8 + length])
    if header["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {header['format']}")
    arrays = {}
    for name, entry in header["arrays"].items():
        kind = np.dtype(entry["type"]).newbyteorder("<")
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(content, kind, count, 8 + length + entry["offset"])
        if "low" in entry:
            low, high = entry["low"], entry["high"]
            values = (low + (high - low) * (values / np.iinfo(kind).max)).astype(np.float32)
        arrays[name] = values.reshape(entry["shape"])
    return header, arrays


def _quantized(array: Array, bits: int) -> tuple[dict[str, Any], bytes]:
    kind = np.dtype(f"<u{bits // 8}")
    if array.dtype in (np.uint8, np.uint16):
        return {"type": str(array.dtype)}, array.astype(array.dtype.newbyteorder("<")).tobytes()
    low, high = float(array.min()), float(array.max())
    scale = np.iinfo(kind).max / (high - low) if high > low else 0.0
    whole = np.rint((array.astype(np.float64) - low) * scale).astype(kind)
    return {"type": f"uint{bits}", "low": low, "high": high}, whole.tobytes()
