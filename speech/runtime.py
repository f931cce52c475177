"""Running a model's file, whatever its format: waveforms in, probabilities or MFCC out."""

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech import container
from speech.container import Metadata
from speech.errors import ModelError
from speech.features import FeatureConfig, mfcc

Batch = npt.NDArray[np.float32]
Function = Callable[[Batch], Batch]

SUFFIXES = (".onnx", ".tflite", ".keras")


@dataclasses.dataclass(frozen=True)
class Runnable:
    """A model that is ready to run.

    Attributes:
        labels: Names of the classes, in the order of the outputs.
        features: The preprocessing.
        infer: Waveforms float32 (n, n_samples) -> probabilities float32 (n, n_classes).
        mfcc: Waveforms float32 (n, n_samples) -> MFCC float32 (n, n_frames, n_mfcc).
        decoder: Settings of the live decoder that were chosen for the model; empty for defaults.
        provenance: Where the model comes from.
        precision: Of the weights: ``float32``, ``float16`` or ``int8``.
    """

    labels: tuple[str, ...]
    features: FeatureConfig
    infer: Function
    mfcc: Function
    decoder: Mapping[str, Any]
    provenance: Mapping[str, Any]
    precision: str


def open_model(path: Path, threads: int = 1) -> Runnable:
    """Open a ``.onnx``, ``.tflite`` or ``.keras`` file.

    Args:
        path: The file.
        threads: Threads of ONNX Runtime or LiteRT; for networks as small as these, one is best.

    Raises:
        ModelError: Not a model of this project, damaged, or what runs it is not installed.
    """
    if path.suffix == ".keras":
        return _open_keras(path)
    metadata, model = container.read(path)
    missing = "onnxruntime" if path.suffix == ".onnx" else "ai-edge-litert"
    extra = "" if path.suffix == ".onnx" else "[export]"
    try:
        run = (_onnx if path.suffix == ".onnx" else _litert)(model, metadata, threads)
    except ImportError as error:
        raise ModelError(
            f"{path}: expected {missing} to be installed to run it, got none ({error}); "
            f"install it with: pip install 'speech-commands{extra}'"
        ) from error
    except Exception as error:  # the runtimes raise classes of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path}: expected a graph that fits its metadata, got another ({reason}); "
            "make it again with: speech export FOLDER_OF_THE_MODEL"
        ) from error
    return Runnable(
        metadata.labels,
        metadata.features,
        lambda waveforms: run("probabilities", waveforms),
        lambda waveforms: run("mfcc", waveforms),
        metadata.decoder,
        metadata.provenance,
        metadata.precision,
    )


def _shapes(metadata: Metadata) -> dict[str, list[int]]:
    """What the inputs and outputs of one clip have to be."""
    features = metadata.features
    return {
        "waveform": [features.n_samples],
        "probabilities": [len(metadata.labels)],
        "mfcc": [features.n_frames, features.n_mfcc],
    }


def _check_shapes(found: Mapping[str, list[Any]], metadata: Metadata) -> None:
    expected = _shapes(metadata)
    if dict(found) != expected:
        raise ValueError(f"shapes {dict(found)} instead of {expected}")


def _onnx(model: bytes, metadata: Metadata, threads: int) -> Callable[[str, Batch], Batch]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tensors = [*session.get_inputs(), *session.get_outputs()]
    _check_shapes({tensor.name: tensor.shape[1:] for tensor in tensors}, metadata)

    def run(output: str, waveforms: Batch) -> Batch:
        # one by one: a batch is no faster, takes more memory, and in 8 bits a clip would depend on
        # the others
        rows = [session.run([output], {"waveform": w[np.newaxis]})[0] for w in waveforms]
        return np.concatenate(rows)

    return run


def _litert(model: bytes, metadata: Metadata, threads: int) -> Callable[[str, Batch], Batch]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=model, num_threads=threads).get_signature_runner()
    tensors = runner.get_input_details() | runner.get_output_details()
    _check_shapes({name: [*map(int, t["shape"])][1:] for name, t in tensors.items()}, metadata)
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(output: str, waveforms: Batch) -> Batch:
        with lock:
            return np.concatenate([runner(waveform=w[np.newaxis])[output] for w in waveforms])

    return run


def _open_keras(path: Path) -> Runnable:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its notices about the processor
    try:
        import keras

        from speech.model import load_model
    except ImportError as error:
        raise ModelError(
            f"{path}: expected Keras to be installed to run it, got none ({error}); "
            "install it with: pip install 'speech-commands[train]'"
        ) from error
    model = load_model(path)

    def infer(waveforms: Batch) -> Batch:
        logits = model.predict_on_batch(mfcc(waveforms, model.features))
        return np.asarray(keras.ops.softmax(logits / model.temperature), np.float32)

    return Runnable(
        model.labels,
        model.features,
        infer,
        lambda waveforms: mfcc(waveforms, model.features),
        model.decoder,
        model.provenance,
        "float32",
    )
