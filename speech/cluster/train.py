"""``speech train`` by several processes at once, with Ray Train and Keras's distribution on JAX.

Each worker draws its parts of each batch, and all take the same step: the result is that of one
process that draws all parts. Where a worker is lost, Ray starts all of them anew from the last
whole epoch.
"""

import contextlib
import dataclasses
import importlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech.cluster.engine import Origin, cluster, refusal
from speech.errors import SpeechError
from speech.formats.folder import ModelFolder
from speech.labels import LabelSet

if TYPE_CHECKING:
    from speech.training.config import TrainConfig
    from speech.training.sources import TrainingData

Report = Callable[[Mapping[str, Any]], None]
_FAILURES = 3  # workers or machines that may be lost
_LOOK_SECONDS = 1.0
_KNOWN = "checkpoint_manager_snapshot.json"


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained. It travels to the workers.

    Attributes:
        read: Gives the decoded sources; called on each worker, which has to see the files.
        labels: The classes.
        config: The recipe; ``parts`` has to be a multiple of the workers.
        start_from: As for ``speech.training.trainer.train``.
    """

    read: "Callable[[], TrainingData]"
    labels: LabelSet
    config: "TrainConfig"
    start_from: Path | None = None


def train(
    training: Training,
    run: Path,
    address: str,
    *,
    workers: int,
    resume: bool = False,
    report: Report = lambda _: None,
    **local: Any,
) -> None:
    """Train a model on a cluster, in a folder as ``speech.training.trainer.train`` leaves it.

    Args:
        training: What is trained.
        run: The folder, which all machines see.
        address: As for ``speech.cluster.engine.cluster``.
        workers: Processes; each has a GPU of its own where the cluster has as many, else a core.
        resume: Go on with what is in the folder.
        report: Told the row of the history after each epoch.
        **local: As for ``cluster``.

    Raises:
        ModelError: As ``speech.training.trainer.train``.
        ClusterError: As ``cluster``.
    """
    store = ModelFolder(run.absolute()).cluster
    if not resume:
        shutil.rmtree(store, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    with cluster(address, **local) as ray:
        rt: Any = importlib.import_module("ray.train")  # whose types are those of its old version
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
        from ray.util.queue import Queue

        refused = Queue(actor_options={"num_cpus": 0})
        begin = str(run.absolute()) if resume and ModelFolder(run).checkpoint.exists() else ""
        trainer: Any = DataParallelTrainer(
            _work,
            train_loop_config={
                "training": training,
                "begin": begin,
                "origin": Origin.here(),
                "refused": refused,
            },
            scaling_config=rt.ScalingConfig(
                num_workers=workers, use_gpu=ray.cluster_resources().get("GPU", 0) >= workers
            ),
            run_config=rt.RunConfig(
                name="run",
                storage_path=str(store),
                failure_config=rt.FailureConfig(max_failures=_FAILURES),
                checkpoint_config=rt.CheckpointConfig(num_to_keep=1),
                # before anything there imports Keras
                worker_runtime_env={"env_vars": {"KERAS_BACKEND": "jax"}},
            ),
        )
        trainer._register_sigint_handler = lambda _: None  # which would exit without a word
        with _watched(store, report):
            try:
                kept: Any = trainer.fit().checkpoint
            except rt.TrainingFailedError as error:
                failures = getattr(error, "worker_failures", {})
                raise refusal(next(iter(failures.values()), error)) from error
        if not refused.empty():
            if not any(store.glob("run/checkpoint_*")):
                shutil.rmtree(store)
            raise refused.get()
        with kept.as_directory() as folder:
            shutil.copytree(folder, run, dirs_exist_ok=True)
    shutil.rmtree(store)


def _work(given: dict[str, Any]) -> None:
    """What each worker does.

    Ray starts the workers again after any error. An error of this package would only be repeated,
    so the workers then do nothing, and the command that began the training raises it.
    """
    if given["refused"].empty():
        try:
            _train(given)
        except SpeechError as error:
            given["refused"].put(error)
            raise


def _train(given: dict[str, Any]) -> None:
    from ray import train as rt
    from ray.train.collective import broadcast_from_rank_zero

    from speech.training import parallel, trainer

    given["origin"].join()  # Ray had gone to a folder of its own
    training: Training = given["training"]
    context = rt.get_context()
    rank, n = context.get_world_rank(), context.get_world_size()
    if n > 1:
        parallel.join(broadcast_from_rank_zero(_free_address()), n, rank)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        checkpoint = rt.get_checkpoint()
        if checkpoint is not None:
            checkpoint.to_directory(run)
        elif given["begin"]:
            shutil.copy(ModelFolder(Path(given["begin"])).checkpoint, run)

        def report(row: Mapping[str, Any]) -> None:
            if "step" not in row:
                kept = rt.Checkpoint.from_directory(run) if rank == 0 else None
                rt.report(dict(row), checkpoint=kept)

        trainer.train(
            training.read(),
            training.labels,
            training.config,
            run,
            start_from=training.start_from,
            resume=True,
            report=report,
        )
        report({"done": True})


def _free_address() -> str:
    import ray.util

    address: Any = ray.util.get_node_ip_address
    with socket.socket() as free:
        free.bind(("", 0))
        return f"{address()}:{free.getsockname()[1]}"


@contextlib.contextmanager
def _watched(store: Path, report: Report) -> Iterator[None]:
    """Report each epoch once it is kept, while the context lasts and at its end."""
    stopped, seen = threading.Event(), 0

    def look() -> None:
        nonlocal seen
        with contextlib.suppress(OSError, ValueError):  # just being written, or deleted
            # Ray goes on from checkpoints that are named here, a while after their folder is there
            known = (store / "run" / _KNOWN).read_text("utf-8")
            folders = sorted(store.glob("run/checkpoint_*"))
            for folder in [each for each in folders if each.name in known][-1:]:
                rows = json.loads(ModelFolder(folder).history.read_text("utf-8"))
                for row in rows[seen:]:
                    report(row)
                seen = max(seen, len(rows))

    def watch() -> None:
        while not stopped.wait(_LOOK_SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        look()
