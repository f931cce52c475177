"""How training shares the cores of a machine: one for the data, the others for the network."""

import os


def share_cores() -> None:
    """Give the network all cores but one, and its data that one; what the user has set stays.

    Call it before anything imports Keras: TensorFlow reads its part when it starts. The data are
    made by one thread. NumPy's BLAS would help it with a thread for every core, and these wait for
    the next product in a loop: for a tenth of the data's work they kept both cores of a small
    machine busy, and took a quarter of its speed from the network (docs/recipe.md). With one, sums
    also come in one order on every machine.
    """
    import numpy as np  # noqa: F401  # its BLAS has to be there to be limited
    from threadpoolctl import threadpool_limits

    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]), "blas")
