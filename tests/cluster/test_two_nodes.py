"""Two nodes of Ray on this machine: what is asked of one machine is answered the same by two."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from speech.child import call
from speech.cli.train import stoppable
from speech.cluster import engine
from speech.cluster.scan import Job, Tally, scan
from speech.detection import Detection
from speech.errors import AudioError, ModelError, SpeechError
from speech.formats.folder import ModelFolder
from speech.installation import find_model
from speech.labels import LabelSet
from speech.live.scan import scan_file
from speech.recognizer import load
from speech.training.space import Parameter, Space
from tests import tiny
from tests.cluster.jobs import read_and_say_who, read_tiny, trained_by_one
from tests.cluster.test_division import WORDS, spoken
from tests.conftest import PROJECT

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
pytestmark = [
    # Ray leaves sockets, files and children to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
MODEL = find_model("commands-8")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[Any]:
    """Two nodes of a core each, with a local S3 beside them; the test's process is connected."""
    server = pytest.importorskip("moto.server", reason="the extra dev brings an S3 server")
    with pytest.MonkeyPatch.context() as patch:
        s3 = server.ThreadedMotoServer(port=0, verbose=False)
        s3.start()
        host, port = s3.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("PYTHONPATH", str(PROJECT))
        # of several trainings of one network, one compiles
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        cluster.add_node(**NODE)
        with engine.cluster(cluster.address):
            yield cluster
        cluster.shutdown()
        s3.stop()


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Recordings of several rates, one of them long, one damaged."""
    folder = tmp_path_factory.mktemp("archive")
    spoken(folder / "long.wav", 80.0, 16_000, gap=1.0)
    spoken(folder / "rate.wav", 20.0, 44_100, gap=0.5, seed=1)
    shutil.copy(WORDS, folder / "words.flac")
    (folder / "cut.wav").write_bytes((folder / "rate.wav").read_bytes()[:5000])
    return folder


def of_one_machine(folder: Path) -> dict[str, tuple[Detection, ...]]:
    model = load(MODEL)
    whole = (path for path in sorted(folder.iterdir()) if path.name != "cut.wav")
    return {path.name: scan_file(model, path).detections for path in whole}


def of_tables(out: Any, **read: Any) -> dict[str, tuple[Detection, ...]]:
    """What pandas reads in the tables, by the name of the recording."""
    pandas = pytest.importorskip("pandas")
    recordings = pandas.read_parquet(f"{out}/recordings", **read)
    assert not recordings["file"].duplicated().any(), "answered twice"
    table = pandas.read_parquet(f"{out}/detections", **read)
    table["name"] = table["file"].str.rpartition("/")[2]
    return {
        name: tuple(map(Detection, *(rows[c] for c in ("label", "probability", "end", "start"))))
        for name, rows in table.groupby("name")
    }


def test_two_nodes_find_what_one_machine_finds_and_do_nothing_twice(nodes, archive, tmp_path):
    notes: list[str] = []
    job = Job((str(archive),), MODEL, str(tmp_path), batches=1)
    tallies: list[Tally] = []
    tally = scan(job, nodes.address, on_note=notes.append, on_progress=tallies.append)
    assert of_tables(tmp_path) == of_one_machine(archive)
    assert (tally.recordings, tally.unreadable, tally.skipped) == (4, 1, 0)
    assert tally.n_bytes == sum(path.stat().st_size for path in archive.iterdir())
    done = [tally.sound_seconds for tally in tallies]
    assert done == sorted(done)
    [note] = notes
    assert note.startswith(f"{archive}/cut.wav: expected")
    import duckdb

    table = duckdb.connect().execute(
        "select error from read_parquet(?)", [f"{tmp_path}/errors/*/*"]
    )
    [[error]] = table.fetchall()
    assert error == note

    before = sorted(tmp_path.rglob("*.parquet"))
    spoken(archive / "new.wav", 10.0, 16_000, gap=0.5, seed=2)
    tally = scan(job, nodes.address, on_note=notes.append)
    assert (tally.recordings, tally.skipped) == (1, 4)
    assert of_tables(tmp_path) == of_one_machine(archive)
    assert set(before) < set(tmp_path.rglob("*.parquet"))


def test_a_bucket_is_read_and_written(nodes, archive):
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("archive")
    store.put(str(archive), "archive/2026", recursive=True)
    job = Job(("s3://archive/2026/*.flac", "s3://archive/2026/rate.wav"), MODEL, "s3://archive/out")
    assert scan(job, nodes.address).recordings == 2
    expected = of_one_machine(archive)
    found = of_tables("s3://archive/out")
    assert found == {name: expected[name] for name in ("words.flac", "rate.wav")}


def test_what_cannot_be_listed_ends_the_scan_with_one_line(nodes, tmp_path, refused):
    for source in ("s3://no-such-bucket/folder", str(tmp_path / "none")):
        job = Job((source,), MODEL, str(tmp_path / "out"))
        assert source in refused(AudioError, lambda job=job: scan(job, nodes.address))


def test_an_error_of_this_package_on_a_worker_arrives_as_itself(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.Origin, "here", lambda: engine.Origin("0.0.1", PROJECT))
    job = Job((str(WORDS),), MODEL, str(tmp_path / "out"))
    with pytest.raises(engine.ClusterError, match=r"expected speech-commands 0\.0\.1 on all"):
        scan(job, nodes.address)


def test_two_workers_train_what_one_does_also_when_one_of_them_is_killed(nodes, tmp_path, capsys):
    from speech.cluster.train import Training, train

    config = tiny.config(parts=2, epoch_clips=64)
    training = Training(functools.partial(read_and_say_who, tmp_path), tiny.LABELS, config)
    killed: list[int] = []

    def kill(row: Any) -> None:
        if not killed:
            killed.extend(int(path.stem) for path in tmp_path.glob("*.pid"))
            os.kill(killed[0], signal.SIGKILL)

    run = tmp_path / "run"
    train(training, run, nodes.address, workers=2, report=kill)
    assert len(killed) == 2
    assert len(list(tmp_path.glob("*.pid"))) == 4, "all began anew"
    assert capsys.readouterr().out == "", "Ray says nothing among the results"
    one = call(trained_by_one, config, tmp_path / "one", environment={"KERAS_BACKEND": "jax"})
    two = json.loads((run / "history.json").read_text())
    for row, other in zip(one, two, strict=True):
        for name in ("loss", "gradient_norm", "val_loss", "val_accuracy"):
            assert row[name] == pytest.approx(other[name], rel=1e-4), name
    assert (run / "model.keras").is_file()
    assert not (run / "ray").exists()


def test_an_error_that_comes_again_is_told_once_and_a_training_does_not_begin_anew(nodes, tmp_path):
    from speech.cluster.train import Training, train

    words = LabelSet("none", ("nobody", "says", "this"))
    training = Training(functools.partial(read_and_say_who, tmp_path), words, tiny.config(parts=2))
    with pytest.raises(ModelError, match="training clips of every word, got none of nobody"):
        train(training, tmp_path / "run", nodes.address, workers=2)
    assert 1 <= len(list(tmp_path.glob("*.pid"))) <= 2, "each worker reads once"
    assert not any((tmp_path / "run").iterdir()), "nothing to go on from"


def test_a_training_that_ctrl_c_has_ended_goes_on_by_the_same_command(nodes, tmp_path):
    tiny.write_corpus(tmp_path / "corpus")
    config = tiny.config(epochs=6, patience=6, epoch_clips=4_096)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    command = [
        *("train", "--ray", nodes.address, "--out", "run", "--data", "corpus", "--cache", "cache"),
        *("--labels", "low,high", "--no-augment", "--config", "config.json"),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "speech", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = [process.stderr.readline()]
        process.send_signal(signal.SIGINT)
        said += process.stderr.readlines()
    assert process.returncode == 130, said
    assert "give the same command again" in said[-1]
    store = tmp_path / "run" / "ray" / "run"
    named = (store / "checkpoint_manager_snapshot.json").read_text()  # what Ray goes on from
    kept = max(path for path in store.glob("checkpoint_*") if path.is_dir() and path.name in named)
    before = json.loads((kept / "history.json").read_text())
    assert 1 <= len(before) < 6
    speech(*command, cwd=tmp_path)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history) == 6
    assert history[: len(before)] == before, "no epoch was done twice"


def speech(*arguments: object, cwd: Path = PROJECT) -> str:
    """What a command prints that does not fail."""
    command = [sys.executable, "-m", "speech", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_scan_that_ctrl_c_has_ended_keeps_its_answers_and_goes_on(nodes, archive, tmp_path):
    def press(tally: Tally) -> None:
        if tally.recordings == 2:
            os.kill(os.getpid(), signal.SIGINT)

    job = Job((str(archive),), MODEL, str(tmp_path), batches=1)
    with pytest.raises(KeyboardInterrupt):
        scan(job, nodes.address, on_progress=press)
    n_files = len(list(archive.iterdir()))
    tally = scan(job, nodes.address)
    assert tally.skipped >= 2
    assert tally.recordings + tally.skipped == n_files
    assert of_tables(tmp_path) == of_one_machine(archive)


def test_ray_of_another_version_is_told_in_one_line(nodes, tmp_path):
    program = "import ray; ray.__version__ = '1.2.3'; from speech.cli.main import main; main()"
    command = ["scan", str(WORDS), "--ray", nodes.address, "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, cwd=PROJECT
    )
    assert done.returncode == 9
    [line] = done.stderr.splitlines()
    assert "1.2.3" in line
    assert ray.__version__ in line


def test_paths_count_from_where_a_command_is_given_not_from_where_nodes_were_started(
    nodes, tmp_path
):
    corpus = tiny.write_corpus(tmp_path / "corpus")
    (tmp_path / "config.json").write_text(json.dumps(tiny.config(epochs=1).to_dict()))
    given = "--ray", nodes.address, "--out"
    data = "--data", "corpus", "--cache", "cache", "--labels", "low,high", "--no-augment"
    said = speech("train", *given, "run", *data, "--config", "config.json", cwd=tmp_path)
    assert "report: run" in said
    speech("scan", "corpus/low", *given, "tables", cwd=tmp_path)
    pandas = pytest.importorskip("pandas")
    files = pandas.read_parquet(tmp_path / "tables" / "recordings")["file"]
    assert sorted(files) == sorted(f"corpus/low/{path.name}" for path in (corpus / "low").iterdir())


def test_two_nodes_measure_of_models_what_one_process_does(nodes, tmp_path):
    from speech.cli.evaluate import ClipMeasurement, MeasureOptions
    from speech.cli.options import DecodingOptions
    from speech.cli.score import StreamMeasurement
    from speech.evaluation.synthetic_streams import Plan
    from speech.model import CommandModel, save_model

    corpus, decoding = tiny.write_corpus(tmp_path / "corpus"), DecodingOptions(tmp_path / "cache")
    model = CommandModel(tiny.LABELS.labels, tiny.FEATURES, tiny.config().architecture)
    runs = tmp_path / "one", tmp_path / "two"
    for run in runs:
        save_model(model, ModelFolder(run).keras)
    out = tmp_path / "out"
    given = *runs, "--ray", nodes.address, "--data", corpus, "--cache", decoding.cache, "--out", out

    said = speech("evaluate", *given, "--json")
    lines = {row.pop("model"): row for row in map(json.loads, said.splitlines())}
    measurement = ClipMeasurement(decoding, MeasureOptions(corpus), {runs[0]: tmp_path / "here"})
    assert lines == dict.fromkeys(map(str, runs), measurement(runs[0]).to_dict())
    assert (out / "two" / "README.md").is_file()

    said = speech("score", *given, "--snr", "clean", "--json")
    streams = StreamMeasurement(decoding, corpus, (), Plan((None,)), "")
    clean = json.loads(json.dumps(streams((runs[0], "clean"))["evaluation"]))
    for line in map(json.loads, said.splitlines()):
        assert line["evaluation"]["clean"] == clean["clean"]
        assert list(line["fast_words"]) == ["same word", "different words"]
    assert len(said.splitlines()) == 2


def test_trials_that_a_signal_has_stopped_go_on_at_their_next_epoch(nodes, tmp_path):
    pytest.importorskip("optuna", reason="the extra cluster is not installed")
    from speech.cluster import tune

    config = tiny.config(epochs=3)
    read = functools.partial(read_tiny, tmp_path)
    space = Space((Parameter("learning_rate", 1e-3, 1e-1, log=True),))
    search = tune.Search(read, tiny.LABELS, config, config, space, tmp_path / "search")
    histories = [ModelFolder(search.run(number)).history for number in (0, 1)]

    def press() -> None:
        while not all(history.exists() for history in histories):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)  # as Ctrl-C, but Ray would take it

    keys = threading.Thread(target=press, daemon=True)
    keys.start()
    with pytest.raises(typer.Exit), stoppable(search.folder):
        tune.tune(search, 2, nodes.address, workers=2)
    keys.join()
    before = [json.loads(history.read_text()) for history in histories]
    study = tune.tune(search, 2, nodes.address, workers=2)
    for trial, history, kept in zip(study.trials, histories, before, strict=True):
        rows = json.loads(history.read_text())
        assert rows[: len(kept)] == kept, "no epoch was done twice"
        assert trial.state.name == "PRUNED" or len(rows) == 3
        assert sorted(trial.intermediate_values) == [row["epoch"] for row in rows]


# the last one with these nodes: one of them is gone afterwards
def test_a_node_that_dies_in_the_middle_changes_no_answer(nodes, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    for seed in range(24):
        spoken(folder / f"{seed:02}.wav", 26.0, 16_000, gap=0.3, seed=seed)
    [victim] = [node for node in nodes.list_all_nodes() if not node.is_head()]
    killed: list[int] = []

    def kill(tally: Tally) -> None:
        if tally.recordings >= 4 and not killed:
            killed.append(tally.recordings)
            nodes.remove_node(victim, allow_graceful=False)

    job = Job((str(folder),), MODEL, str(tmp_path / "out"), batches=1)
    tally = scan(job, nodes.address, on_progress=kill)
    assert 4 <= killed[0] < 24
    assert (tally.recordings, tally.unreadable) == (24, 0)
    assert of_tables(tmp_path / "out") == of_one_machine(folder)


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch, refused):
    def connect(address: str) -> None:
        with engine.cluster(address):
            pass

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"):
        assert address in refused(SpeechError, lambda address=address: connect(address))


def test_without_ray_the_command_names_the_package_and_how_to_get_it(tmp_path):
    program = "import sys; sys.modules['ray'] = None; from speech.cli.main import main; main()"
    command = ["scan", str(WORDS), "--ray", "local", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, cwd=PROJECT
    )
    assert done.returncode == 9
    [line] = done.stderr.splitlines()
    assert "expected Ray" in line
    assert "cluster" in line
