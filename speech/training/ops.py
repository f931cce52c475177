"""What the augmentation needs of Keras's backends: compiled functions and stateless randomness."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Tensor = Any  # of whichever backend
_SEED_DTYPES = {"jax": "uint32", "torch": "int32"}  # TensorFlow: int64


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one kernel where the backend can: no random numbers, only arithmetic.

    TensorFlow passes over memory once for each operation; XLA does many of them in one pass.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)  # type: ignore[no-any-return]
    return function


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled by the backend: ``jax.jit``, ``tf.function`` or as it is."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def exact(*arguments: Any) -> Any:
            with jax.default_matmul_precision("float32"):  # else ten bits of mantissa
                return function(*arguments)

        return jax.jit(exact)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)  # type: ignore[no-any-return]
    return function


def has_accelerator() -> bool:
    """Whether the backend computes on something faster than this machine's processor."""
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.default_backend()) != "cpu"
    return any(not str(name).startswith("cpu") for name in keras.distribution.list_devices())


class Draws(keras.random.SeedGenerator):  # type: ignore[misc]
    """Random numbers decided by one integer, which may be a traced tensor.

    Keras's own generator keeps its state in a variable; here the n-th draw of a function is
    decided by (seed, n) alone, so that a batch can be made again from its number.

    Args:
        seed: A scalar in [0, 2**31).
    """

    def __init__(self, seed: Tensor) -> None:  # no variable: the state is the argument
        self._key = ops.cast(seed, _SEED_DTYPES.get(keras.backend.backend(), "int64"))
        self._count = 0

    def next(self, ordered: bool = True) -> Tensor:  # noqa: ARG002 (as in Keras)
        """The seed of the next draw, (2,)."""
        self._count += 1
        return ops.stack([self._key, ops.cast(self._count, self._key.dtype)])

    def uniform(self, shape: tuple[int, ...], low: Any = 0.0, high: Any = 1.0) -> Tensor:
        """float32, uniform in [low, high); the limits may be tensors that broadcast."""
        return low + (high - low) * keras.random.uniform(shape, dtype="float32", seed=self)

    def log_uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """float32 whose logarithm is uniform."""
        return ops.exp(self.uniform(shape, math.log(low), math.log(high)))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """float32, standard normal."""
        return keras.random.normal(shape, dtype="float32", seed=self)

    def white(self, shape: tuple[int, ...]) -> Tensor:
        """float32 of mean 0 and variance 1, uniform: as white as normal, and far cheaper."""
        return self.uniform(shape, -math.sqrt(3.0), math.sqrt(3.0))

    def chance(self, shape: tuple[int, ...], probability: float) -> Tensor:
        """float32, 1 with this probability, else 0."""
        return ops.cast(self.uniform(shape) < probability, "float32")

    def index(self, shape: tuple[int, ...], n: int) -> Tensor:
        """int32, uniform in [0, n)."""
        return ops.minimum(ops.cast(self.uniform(shape) * n, "int32"), n - 1)
