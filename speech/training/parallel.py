"""Several processes that train one model: each draws its parts of a batch, all take the same step.

Keras's own distribution on JAX: the weights are on every process, a batch is one array whose rows
lie on all of them, and gradients, batch normalization and dropout are those of the whole batch.
"""

import keras

from speech.errors import ModelError

_PLACE = {"n": 1, "rank": 0}  # among the processes of this training


def join(coordinator: str, n: int, rank: int) -> None:
    """Make this process one of n that train together; call it before anything is built.

    Args:
        coordinator: ``HOST:PORT`` on which the process of rank 0 listens.
        n: Number of processes.
        rank: Of this one, in [0, n).

    Raises:
        ModelError: Keras runs on another backend than JAX.
    """
    if keras.backend.backend() != "jax":
        raise ModelError(
            f"expected Keras on JAX for a training by several processes, got "
            f"{keras.backend.backend()}; set KERAS_BACKEND=jax"
        )
    keras.distribution.initialize(coordinator, n, rank)
    _PLACE.update(n=n, rank=rank)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def my_parts(n: int) -> range:
    """Which of the n parts of a batch this process draws.

    Raises:
        ModelError: The processes cannot share them equally.
    """
    each, left = divmod(n, _PLACE["n"])
    if left:
        raise ModelError(
            f"expected parts of a batch that {_PLACE['n']} processes can share, got {n}; choose a "
            "multiple"
        )
    return range(_PLACE["rank"] * each, (_PLACE["rank"] + 1) * each)
