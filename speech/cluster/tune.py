"""``speech tune``: a search for a better recipe, by a study of Optuna whose trials run on Ray.

Optuna's study, one file on the disk, chooses the values and prunes; Ray gives each trial cores and
a process of its own, and begins it again where a machine is lost. Ray Tune, which lies between the
two for others, would not tell Optuna which trials were stopped early: it would learn from their
half-trained accuracy as from that of whole trainings.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech.cluster.engine import ClusterError, Origin, cancelled_after, cluster
from speech.data.evaluation_set import evaluation_set
from speech.environment import share_cores
from speech.errors import EvidenceError, ModelError
from speech.files import write_json
from speech.formats.folder import ModelFolder
from speech.installation import install_command
from speech.labels import LabelSet
from speech.training.config import TrainConfig
from speech.training.sources import Source
from speech.training.space import Space

if TYPE_CHECKING:
    import optuna

    from speech.training.sources import TrainingData

PRUNERS = ("median", "hyperband", "none")
_STUDY = "search"
_STARTUP_TRIALS = 4  # that run to their end before the median of others ends one


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched, and where. It travels to the workers.

    Attributes:
        read: Gives the decoded sources for a config; called on each worker, which has to see the
            files.
        labels: The classes.
        recipe: Where the search begins; the recipe that is written has its schedule.
        config: The same on the schedule of the trials.
        space: What may change.
        folder: Everything that the search keeps; all machines see it.
        sources: Those of the recipe, for the recipe that is written.
        pruner: One of ``PRUNERS``.
    """

    read: "Callable[[TrainConfig], TrainingData]"
    labels: LabelSet
    recipe: TrainConfig
    config: TrainConfig
    space: Space
    folder: Path
    sources: tuple[Source, ...] = ()
    pruner: str = "median"

    def run(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / f"{number:04}"

    def identity(self, data: "TrainingData") -> dict[str, Any]:
        """What all trials of one folder have to share for their figures to be comparable."""
        return json.loads(  # type: ignore[no-any-return]
            json.dumps(
                {
                    "labels": self.labels.labels,
                    "recipe": self.config.to_dict(),
                    "space": [dataclasses.asdict(each) for each in self.space.parameters],
                    "pruner": self.pruner,
                    "data": data.provenance(),
                }
            )
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``, as Optuna names it.
        facts: ``accuracy`` on the validation clips, of the best epoch; ``epochs``, ``seconds`` and,
            of a whole training, ``weights``; or ``error``.
    """

    state: str
    facts: dict[str, Any]


def tune(
    search: Search,
    trials: int,
    address: str,
    *,
    workers: int = 1,
    report: "Callable[[optuna.Study, int], object]" = lambda *_: None,
    **local: Any,
) -> "optuna.Study":
    """Search until the folder holds so many trials that have ended; go on if it holds some.

    The first trial is the recipe as it is, where the space holds its values. A trial that was
    interrupted goes on from its last whole epoch.

    Args:
        search: What is searched.
        trials: How many trials there are in the end, the earlier ones included.
        address: As for ``speech.cluster.engine.cluster``.
        workers: Trials at the same time; they share the cores, and GPUs where there are as many.
        report: Told the study and the number of a trial that has ended.
        **local: As for ``cluster``.

    Returns:
        The study; at least one of its trials has trained to its end.

    Raises:
        ModelError: The folder holds another search, one works in it, or it cannot be written.
        CorpusError: No validation clips of the words.
        EvidenceError: No trial has trained to its end.
        ClusterError: As ``cluster``; or Optuna is not installed.
    """
    _check_optuna()
    data = search.read(search.config)
    evaluation_set(data.recordings, search.labels)  # refuses a corpus that cannot choose
    identity = search.identity(data)
    del data  # the trials read it by themselves
    with _alone_in(search.folder):
        with kept_in(search.folder):
            study = open_study(search, identity)
        with cluster(address, **local) as ray, kept_in(search.folder):
            _run(ray, study, search, trials, workers, report)
    ended = study.get_trials(deepcopy=False)
    if not any(trial.state.name == "COMPLETE" for trial in ended):
        errors = [trial.user_attrs["error"] for trial in ended if "error" in trial.user_attrs]
        raise EvidenceError(
            f"{search.folder}: expected a trial that trains to its end, got none of {len(ended)} "
            f"({errors[0] if errors else 'all were pruned'}); change the space, or try more"
        )
    return study


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Refuse a folder that another search works in: both would end the trials of either."""
    import filelock

    with kept_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "search.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise ModelError(
                f"{folder}: expected a folder that no other search works in, got one that does; "
                "wait for it, or choose another",
                parameter="out",
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses, here or on a worker, into one line."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        reason = getattr(error, "cause", error)  # of Ray's, which is one of these too
        raise ModelError(
            f"{folder}: expected a folder to keep the search in, got the error "
            f"{reason.strerror or reason}; make room or choose another, what is done stays and is "
            "not done again",
            parameter="out",
        ) from error


def open_study(search: Search, identity: dict[str, Any]) -> "optuna.Study":
    """The study in the folder of a search, new or as it was left.

    Raises:
        ModelError: The study is that of another search.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = search.folder / "search.json"
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
        others = [name for name in identity if kept.get(name) != identity[name]]
        if others:
            raise ModelError(
                f"{search.folder}: expected this search, got one with another {others[0]}; give "
                "the same options, or another folder",
                parameter="out",
            )
    write_json(path, identity)
    backend = JournalFileBackend(str(search.folder / "study.journal"))
    n_epochs = search.config.epochs
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "median": lambda: optuna.pruners.MedianPruner(_STARTUP_TRIALS, max(1, n_epochs // 4)),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(1, n_epochs),
        "none": optuna.pruners.NopPruner,
    }
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=_STUDY,
        direction="maximize",
        load_if_exists=True,
        pruner=pruners[search.pruner](),
    )
    n_trials = len(study.get_trials(deepcopy=False))
    # what was drawn before the search was interrupted shall not be drawn again
    seed = search.config.seed + n_trials
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    begin = search.space.point(search.config)
    if begin is not None and not n_trials:
        study.enqueue_trial(begin, user_attrs={"recipe": True})
    return study


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ClusterError(
            f"expected Optuna to be installed for this, got none ({error}); install it with: "
            f"{install_command('cluster')}"
        ) from error


def _run(
    ray: Any,
    study: "optuna.Study",
    search: Search,
    trials: int,
    workers: int,
    report: "Callable[[optuna.Study, int], object]",
) -> None:
    from optuna.trial import Trial, TrialState

    lost = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    waiting = [Trial(study, trial._trial_id) for trial in lost]
    task = _task(ray, workers)
    running: dict[Any, Trial] = {}
    with cancelled_after(ray, running):
        while True:
            while len(running) < workers:
                known = study.get_trials(deepcopy=False)
                begun = sum(trial.state != TrialState.WAITING for trial in known)
                if not waiting and begun >= trials:
                    break
                trial = waiting.pop() if waiting else study.ask()
                try:
                    config = search.space.draw(trial, search.config)
                except ValueError as error:  # each value is in order, but not all of them together
                    _end(study, search, trial, Outcome("FAIL", {"error": str(error)}))
                    report(study, trial.number)
                    continue
                running[task.remote(trial, search, config, Origin.here())] = trial
            if not running:
                return
            [done], _ = ray.wait(list(running))
            outcome, trial = ray.get(done), running.pop(done)
            _end(study, search, trial, outcome)
            report(study, trial.number)


def _end(study: "optuna.Study", search: Search, trial: Any, outcome: Outcome) -> None:
    from optuna.trial import TrialState

    for name, value in outcome.facts.items():
        trial.set_user_attr(name, value)
    value = outcome.facts["accuracy"] if outcome.state == "COMPLETE" else None
    study.tell(trial, value, TrialState[outcome.state])
    ModelFolder(search.run(trial.number)).checkpoint.unlink(missing_ok=True)


def _task(ray: Any, workers: int) -> Any:
    """What runs a trial: in a process of its own, with its share of the cores and GPUs."""
    total = ray.cluster_resources()
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    cores = max(1, int(min(total.get("CPU", 1) / workers, *filter(None, nodes))))
    threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, cores - 1)), "TF_NUM_INTEROP_THREADS": "1"}
    return ray.remote(max_calls=1)(_work).options(
        num_cpus=cores,
        num_gpus=int(total.get("GPU", 0) >= workers),
        runtime_env={"env_vars": threads},  # before anything there imports Keras
    )


def _work(trial: Any, search: Search, config: TrainConfig, origin: Origin) -> Outcome:
    """What a worker does."""
    origin.join()
    share_cores()
    import optuna

    from speech.training import trainer

    run = search.run(trial.number)

    def report(row: Any) -> None:
        if "step" in row:
            return
        trial.report(row["val_accuracy"], row["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    facts: dict[str, Any] = {}
    state = "COMPLETE"
    try:
        model = trainer.train(
            search.read(config), search.labels, config, run, resume=True, report=report
        )
        facts["weights"] = model.count_params()
    except optuna.TrialPruned:
        state = "PRUNED"
    except ModelError as error:
        return Outcome("FAIL", {"error": str(error)})
    rows = json.loads(ModelFolder(run).history.read_text("utf-8"))
    facts["epochs"] = len(rows)
    facts["seconds"] = round(sum(row["seconds"] for row in rows), 1)
    facts["accuracy"] = max(row["val_accuracy"] for row in rows)
    return Outcome(state, facts)
