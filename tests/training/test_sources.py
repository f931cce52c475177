import numpy as np
import pytest
import soundfile

from speech.training.sources import Source, load_sources, with_sources
from tests import tiny


def write(folder, word, names):
    (folder / word).mkdir(parents=True, exist_ok=True)
    for name in names:
        rng = np.random.default_rng([*word.encode(), *name.encode()])
        soundfile.write(folder / word / f"{name}.wav", rng.uniform(-0.1, 0.1, 6_400), 16_000)


def test_every_role_goes_to_its_place_and_what_is_left_out_does_not_train(tmp_path):
    write(tmp_path / "words", "yes", ["anna_nohash_0", "ben_nohash_0"])
    write(tmp_path / "words", "zh_no", ["anna_nohash_0"])
    write(tmp_path / "talk", "any", [f"t{i}" for i in range(3)])
    write(tmp_path / "hum", "any", ["fan", "fridge"])
    data = load_sources(
        [
            Source(str(tmp_path / "words"), keep_all=True, leave_out=("zh_*/*",)),
            Source(str(tmp_path / "talk"), "speech"),
            Source(str(tmp_path / "hum"), "noise"),
        ],
        tiny.FEATURES,
        tmp_path / "cache",
    )
    assert data.words[0].words() == ["yes", "yes"]
    assert len(data.speech[0][1].samples) == 3 * 6_400
    assert [len(n) for n in data.noise] == [2 * 6_400]
    names = [(row["name"], row["role"]) for row in data.provenance()]
    assert names == [("words", "words"), ("talk", "speech")]


def test_a_corpus_and_the_folders_beside_it_train_together(tmp_path):
    write(tmp_path / "more", "fox", ["anna_nohash_0", "me_nohash_0"])
    recordings = tiny.recordings(tmp_path / "cache" / "main")
    more = [Source(str(tmp_path / "more"), keep_all=True)]
    data = with_sources(recordings, tiny.FEATURES, more)
    assert data.recordings is recordings
    assert len(data.words) == 2
    assert data.words[1].words() == ["fox", "fox"], "all of its speakers train"


def test_a_role_that_is_none_and_a_weight_of_nothing_are_refused():
    with pytest.raises(ValueError, match="words, speech, noise"):
        Source("x", "music")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="above 0"):
        Source("x", weight=0)
    assert Source.from_table({"path": "x", "weight": 2.0}) == Source("x", weight=2.0)
