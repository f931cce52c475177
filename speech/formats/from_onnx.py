"""The weights of an exported ONNX file as plain arrays again: the way back from ``to_onnx``."""

from pathlib import Path

import numpy as np

from speech.errors import ModelError
from speech.formats.carried import refuse_causal
from speech.formats.metadata import Metadata, constants, read
from speech.formats.weights import Array, FrontEnd, Network, TaughtHead, WordBranch


def read_onnx(path: Path) -> tuple[Metadata, FrontEnd, Network]:
    """What ``write_onnx`` was given, bit for bit, without TensorFlow, librosa or the onnx package.

    Args:
        path: A ``.onnx`` file in float32.

    Raises:
        ModelError: Not an export of this project, quantized, of a causal model, or made before
            weights had names.

    Example:
        >>> from speech.formats.from_onnx import read_onnx
        >>> from speech.installation import find_model
        >>> metadata, front_end, network = read_onnx(find_model("commands-8") / "model.onnx")
        >>> network.classifier[0].shape, len(network.lstm_layers)
        ((256, 10), 2)
    """
    metadata, model = read(path)
    refuse_causal(path, metadata)
    try:
        if path.suffix != ".onnx" or metadata.precision != "float32":
            raise ValueError(f"{path.suffix} in {metadata.precision}")
        weights = constants(model)
        return metadata, _front_end(weights), _network(weights)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: expected an ONNX file in float32 whose weights have names, got another one "
            f"({error}); make it again with: speech export FOLDER_OF_THE_MODEL"
        ) from error


def _front_end(weights: dict[str, Array]) -> FrontEnd:
    return FrontEnd(
        dft_outer=weights["front_end.dft_outer"],
        dft_real=weights["front_end.dft_real"],
        dft_imaginary=weights["front_end.dft_imaginary"],
        mel=weights["front_end.mel"],
        dct=weights["front_end.dct"],
        offset=weights["front_end.offset"].ravel(),
    )


def _network(weights: dict[str, Array]) -> Network:
    attention = None
    if "attention.kernel" in weights:
        kernel, bias, query = (weights[f"attention.{name}"] for name in ("kernel", "bias", "query"))
        attention = (kernel, bias, query)
    n_convolutions = sum(name.startswith("convolutions.") for name in weights) // 2
    n_lstm_layers = sum(name.startswith("lstm_layers.") for name in weights) // 3
    return Network(
        mean=weights["mean"],
        scale=weights["scale"],
        convolutions=tuple(
            (
                np.ascontiguousarray(weights[f"convolutions.{i}.kernel"].transpose(2, 1, 0)),
                weights[f"convolutions.{i}.bias"],
            )
            for i in range(n_convolutions)
        ),
        lstm_layers=tuple(
            _lstm(*(weights[f"lstm_layers.{i}.{name}"] for name in ("kernel", "recurrent", "bias")))
            for i in range(n_lstm_layers)
        ),
        attention=attention,
        classifier=(weights["classifier.kernel"], weights["classifier.bias"]),
        branch=_branch(weights) if "branch.kernel" in weights else None,
        head=_head(weights) if "head.kernel" in weights else None,
    )


def _branch(weights: dict[str, Array]) -> WordBranch:
    parts, kernel, bias = (weights[f"branch.{name}"] for name in ("parts", "kernel", "bias"))
    return WordBranch(parts, kernel, bias)


def _head(weights: dict[str, Array]) -> TaughtHead:
    return TaughtHead(
        offsets=tuple(map(int, weights["head.offsets"].ravel())),
        kernel=weights["head.kernel"],
        bias=weights["head.bias"],
        shares=weights["head.shares"],
    )


def _lstm(
    kernels: Array, recurrents: Array, biases: Array
) -> tuple[tuple[Array, Array, Array], ...]:
    """The directions of a layer, with gates in Keras's order."""

    def gates(weights: Array) -> Array:  # ONNX: input, output, forget, cell
        i, o, f, c = np.split(weights, 4, axis=0)
        return np.ascontiguousarray(np.concatenate([i, f, c, o], axis=0).T)

    return tuple(
        (gates(kernel), gates(recurrent), gates(bias[: len(bias) // 2]))
        for kernel, recurrent, bias in zip(kernels, recurrents, biases, strict=True)
    )
