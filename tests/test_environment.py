import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, os
from speech.environment import share_cores
share_cores()
import numpy as np, scipy.linalg, threadpoolctl
scipy.linalg.inv(np.eye(2))
pools = [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
print(json.dumps([pools, os.environ["TF_NUM_INTRAOP_THREADS"]]))
"""


@pytest.mark.parametrize("given", ["", "2"])
def test_the_data_of_a_training_keep_to_one_thread_unless_the_user_says_otherwise(given):
    free = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment = free | ({"OPENBLAS_NUM_THREADS": given} if given else {})
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    pools, network = json.loads(ran.stdout)
    if sys.platform == "darwin" and not pools:
        pytest.skip("Apple's own BLAS shares the cores by itself")
    assert set(pools) == {int(given or 1)}  # NumPy's, loaded before, and SciPy's, after
    assert int(network) == max(1, (os.cpu_count() or 2) - 1)
