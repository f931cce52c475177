"""Running a model's file, whatever its format: waveforms in, probabilities or MFCC out."""

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech import keras_file
from speech.architecture import ModelConfig
from speech.audio import Waveform
from speech.errors import ModelError
from speech.features import mfcc
from speech.formats.carried import CarriedModel, carried_litert, carried_onnx, stream_of
from speech.formats.metadata import WINDOW_HOPS, Metadata, read
from speech.installation import install_command

if TYPE_CHECKING:
    from speech.model import CommandModel

Batch = npt.NDArray[np.float32]
Function = Callable[[Batch], Batch]

_CLIPS, _WINDOWS = 8, 32  # in one run: more do not stay in the cache of the processor


@dataclasses.dataclass(frozen=True)
class Runnable:
    """A model that is ready to run.

    Attributes:
        config: Labels, features and all else that inference has to know.
        infer: Waveforms float32 (n, n_samples) -> probabilities float32 (n, n_classes).
        mfcc: Waveforms float32 (n, n_samples) -> MFCC float32 (n, n_frames, n_mfcc).
        windows: Waveform float32 (n,), n >= n_samples -> probabilities float32 of the windows that
            begin every ``WINDOW_HOPS`` hops, with the MFCC of each frame computed once; None where
            that cannot be.
        precision: Of the weights: ``float32``, ``float16`` or ``int8``.
        embed: Waveforms float32 (n, n_samples) -> what the classifier reads of them, float32
            (n, width); None where the file does not give it.
        carried: What answers at every step of a stream; None of a model that is given clips.
    """

    config: ModelConfig
    infer: Function
    mfcc: Function
    windows: Callable[[Waveform], Batch] | None = None
    precision: str = "float32"
    embed: Function | None = None
    carried: CarriedModel | None = None


def load_keras(path: Path) -> "CommandModel":
    """A ``.keras`` file as a network; the file is read before Keras is imported.

    Raises:
        ModelError: Not a model of this project, damaged, or Keras is not installed.
    """
    try:
        config, weights = keras_file.read(path)
        from speech.model import build_model
    except ImportError as error:
        raise ModelError(
            f"{path}: expected Keras to be installed to open it, got none ({error}); "
            f"install it with: {install_command('train')}"
        ) from error
    return build_model(path, config, weights)


def check(path: Path) -> None:
    """Refuse a model's file that ``open_model`` would refuse before running it, and run nothing."""
    (keras_file.read if path.suffix == ".keras" else read)(path)


def open_model(path: Path, threads: int = 1) -> Runnable:
    """Open a ``.onnx``, ``.tflite`` or ``.keras`` file.

    Args:
        path: The file.
        threads: Threads of ONNX Runtime, among which the clips of a batch are divided, or of
            LiteRT.

    Raises:
        ModelError: Not a model of this project, damaged, or what runs it is not installed.
    """
    if path.suffix == ".keras":
        return _open_keras(path)
    metadata, model = read(path)
    missing = "onnxruntime" if path.suffix == ".onnx" else "ai-edge-litert"
    extras = () if path.suffix == ".onnx" else ("export",)
    try:
        return (_onnx if path.suffix == ".onnx" else _litert)(model, metadata, threads)
    except ImportError as error:
        raise ModelError(
            f"{path}: expected {missing} to be installed to run it, got none ({error}); "
            f"install it with: {install_command(*extras)}"
        ) from error
    except Exception as error:  # the runtimes raise classes of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path}: expected a graph that fits its metadata, got another ({reason}); "
            "make it again with: speech export FOLDER_OF_THE_MODEL"
        ) from error


def _runnable(
    metadata: Metadata,
    run: Callable[[str, Batch], Batch],
    windows: Callable[[Waveform], Batch] | None = None,
    *,
    embeds: bool = False,
) -> Runnable:
    return Runnable(
        metadata,
        lambda waveforms: run("probabilities", waveforms),
        lambda waveforms: run("mfcc", waveforms),
        windows,
        metadata.precision,
        (lambda waveforms: run("embedding", waveforms)) if embeds else None,
    )


def _carried(metadata: Metadata, model: CarriedModel) -> Runnable:
    # a graph that fits its metadata is seen by what it answers, too
    model.infer(np.zeros((1, metadata.features.n_samples), np.float32))
    return Runnable(metadata, model.infer, model.mfcc, precision=metadata.precision, carried=model)


def _check_shapes(found: Mapping[str, list[Any]], expected: Mapping[str, list[Any]]) -> None:
    if dict(found) != expected:
        raise ValueError(f"shapes {dict(found)} instead of {expected}")


def _onnx_session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is fatal: errors are raised
    # weights that lie in other files are looked for where there is nothing
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", f"{os.devnull}-none"
    )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _onnx(model: bytes, metadata: Metadata, threads: int) -> Runnable:
    session = _onnx_session(model)
    if metadata.causality is not None:
        return _carried(metadata, carried_onnx(session, metadata))
    features, n_classes = metadata.features, len(metadata.labels)
    shapes: dict[str, list[Any]] = {
        "waveform": ["batch", "samples"],
        "probabilities": ["windows", n_classes],
        "mfcc": ["batch", "frames", features.n_mfcc],
    }
    found = {t.name: t.shape for t in (*session.get_inputs(), *session.get_outputs())}
    # older exports have none; how wide it is, the network decides
    *_, width = found.get("embedding", [0])
    if width:
        shapes["embedding"] = ["windows", int(width)]
    _check_shapes(found, shapes)
    # in 8 bits a clip would depend on those beside it
    exact = metadata.precision == "float32"
    at_once = _CLIPS if exact else 1
    pool = ThreadPoolExecutor(threads) if threads > 1 else None

    rows_of = {
        "probabilities": (n_classes,),
        "mfcc": (features.n_frames, features.n_mfcc),
        "embedding": (width,),
    }

    def run(output: str, waveforms: Batch) -> Batch:
        def one(first: int) -> Batch:
            part = waveforms[first : first + at_once]
            rows: Batch = session.run([output], {"waveform": part})[0]
            return rows

        firsts = range(0, len(waveforms), at_once)
        each = pool.map(one, firsts) if pool and len(firsts) > 1 else map(one, firsts)
        rows = np.concatenate(list(each))
        if rows.shape != (len(waveforms), *rows_of[output]):
            raise ValueError(f"{output} of shape {rows.shape} for {len(waveforms)} clips")
        return rows

    def windows(waveform: Waveform) -> Batch:
        step = WINDOW_HOPS * features.hop_length
        count = 1 + (len(waveform) - features.n_samples) // step
        starts = range(0, count * step, _WINDOWS * step)
        ends = (min(start + _WINDOWS * step, count * step) for start in starts)
        spans = [
            waveform[np.newaxis, start : end - step + features.n_samples]
            for start, end in zip(starts, ends, strict=True)
        ]
        return np.concatenate([run_span(span) for span in spans])

    def run_span(span: Batch) -> Batch:
        rows: Batch = session.run(["probabilities"], {"waveform": span})[0]
        return rows

    # a graph that fits its metadata is seen by what it answers, too
    run("probabilities", np.zeros((1, features.n_samples), np.float32))
    return _runnable(metadata, run, windows if exact else None, embeds=bool(width))


def _litert(model: bytes, metadata: Metadata, threads: int) -> Runnable:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=model, num_threads=threads).get_signature_runner()
    if metadata.causality is not None:
        return _carried(metadata, carried_litert(runner, metadata))
    tensors = runner.get_input_details() | runner.get_output_details()
    features = metadata.features
    shapes: dict[str, list[Any]] = {
        "waveform": [features.n_samples],
        "probabilities": [len(metadata.labels)],
        "mfcc": [features.n_frames, features.n_mfcc],
    }
    _check_shapes({name: [*map(int, t["shape"])][1:] for name, t in tensors.items()}, shapes)
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(output: str, waveforms: Batch) -> Batch:
        with lock:
            return np.concatenate([runner(waveform=w[np.newaxis])[output] for w in waveforms])

    return _runnable(metadata, run)


def _open_keras(path: Path) -> Runnable:
    model = load_keras(path)
    import keras

    def infer(waveforms: Batch) -> Batch:
        if model.causality is not None:
            waveforms = stream_of(waveforms, model.causality, model.features)
        logits = model.predict_on_batch(mfcc(waveforms, model.features))
        return np.asarray(keras.ops.softmax(logits / model.temperature), np.float32)

    return Runnable(model.config(), infer, lambda waveforms: mfcc(waveforms, model.features))
