"""The exported page decides as Python does: the same streams go through both, in a real browser."""

import dataclasses
import json
import shutil
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import soxr

from speech.detection import DecoderConfig, PosteriorDecoder
from speech.features import FeatureConfig
from speech.labels import commands
from speech.recognizer import load
from speech.stream import chosen_for
from speech.web.export import constants
from speech.web.near_misses import NearMissFinder
from speech.web.sessions import SENSITIVITIES, Listener, with_sensitivity
from tests.e2e.static_server import static_server
from tests.hearing import by_loudness

pytestmark = pytest.mark.browser
PROJECT = Path(__file__).parents[2]
POSTERIORS = PROJECT / "tests" / "golden" / "posteriors.npz"
FEATURES = FeatureConfig()

DECODE = """async ({ streams, runs, labels }) => {
  const { PosteriorDecoder } = await import("/detection.js");
  return runs.map(({ stream, config }) => {
    const [before, ...rows] = streams[stream];
    const decoder = new PosteriorDecoder(config, labels, 16000, 16000, before);
    return rows.map((row) => decoder.decode(row)).filter((detection) => detection);
  });
}"""
SETTINGS = """async ({ config, thresholds }) => {
  const { withSensitivity, withThresholds } = await import("/detection.js");
  return [
    ...["low", "medium", "high"].map((name) => withSensitivity(config, name)),
    ...thresholds.map((threshold) => withThresholds(config, threshold)),
  ];
}"""
NEAR = """async ({ streams, labels, config }) => {
  const { NearMissFinder } = await import("/detection.js");
  return streams.map((rows) => {
    const finder = new NearMissFinder(labels, config);
    return rows.map((row, i) => {
      if (i % 40 === 39) finder.settle();
      return finder.push(i / 10, row);
    });
  });
}"""
RESAMPLE = """async ({ samples, from, sizes }) => {
  const { Resampler } = await import("/stream.js");
  const resampler = new Resampler(from, 16000);
  const made = [];
  for (let at = 0, i = 0; at < samples.length; at += sizes[i++ % sizes.length]) {
    const piece = samples.slice(at, at + sizes[i % sizes.length]);
    made.push(...resampler.push(Float32Array.from(piece)));
  }
  return [...made, ...resampler.finish()];
}"""
LISTEN = """async ({ about, pieces }) => {
  const { Listener } = await import("/listener.js");
  const classify = async (window) => {
    const loudness = Math.sqrt(window.reduce((sum, x) => sum + x * x, 0) / window.length);
    const best = loudness > 0.1 ? 0 : loudness > 0.001 ? 1 : 3;
    return [0, 1, 2, 3].map((i) => (i === best ? Math.fround(0.97) : Math.fround(0.01)));
  };
  const listener = new Listener(about, classify, [0.01, 0.01, 0.01, 0.97].map(Math.fround));
  const messages = [];
  for (const { pcm, lost } of pieces) {
    const bytes = Uint8Array.from(atob(pcm), (letter) => letter.charCodeAt());
    messages.push(...(await listener.push(new Int16Array(bytes.buffer), 16000, lost)));
  }
  return [...messages, ...(await listener.end())];
}"""


@pytest.fixture(scope="module")
def page(launch, tmp_path_factory):
    """An empty page beside the scripts of the exported one, which need no runtime for this."""
    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(PROJECT / "speech" / "web" / "standalone", folder, dirs_exist_ok=True)
    (folder / "constants.js").write_text(f"export default {json.dumps(constants())};")
    (folder / "empty.html").write_text("<!doctype html>")
    with static_server(folder) as address:
        page = launch().new_page()
        page.goto(f"{address}empty.html")
        yield page
        page.close()


@pytest.fixture(scope="module")
def shipped():
    return load()


def test_of_200_recorded_streams_the_page_detects_what_python_detects(page, shipped):
    golden = np.load(POSTERIORS)
    labels, streams = tuple(map(str, golden["labels"])), golden["posteriors"].astype(np.float64)
    assert len(streams) == 200
    own = chosen_for(shipped)
    others = [
        DecoderConfig(),
        *(with_sensitivity(own, logits) for logits in SENSITIVITIES.values()),
        DecoderConfig(refractory_seconds=0.0, min_consecutive_windows=1, smoothing_seconds=0.1),
        DecoderConfig(threshold=0.5, release_threshold=0.3, smoothing_seconds=0.5),
    ]
    runs = [
        (stream, config)
        for stream in range(len(streams))
        for config in (own, others[stream % len(others)])
    ]
    argument = {
        "streams": streams.tolist(),
        "runs": [{"stream": stream, "config": config.to_dict()} for stream, config in runs],
        "labels": labels,
    }
    found = page.evaluate(DECODE, argument)
    expected = []
    for stream, config in runs:
        before, *rows = streams[stream]
        decoder = PosteriorDecoder(config, labels, FEATURES, before)
        expected.append([dataclasses.asdict(d) for d in decoder.decode(np.stack(rows))])
    assert found == expected
    assert {d["label"] for one in expected for d in one} == set(commands(labels))
    assert sum(map(len, expected)) > 1000


def test_near_misses_are_pythons(page, shipped):
    golden = np.load(POSTERIORS)
    labels, streams = tuple(map(str, golden["labels"])), golden["posteriors"].astype(np.float64)
    config = DecoderConfig(threshold=0.95, thresholds={"yes": 0.8})
    argument = {"streams": streams[:40].tolist(), "labels": labels, "config": config.to_dict()}
    expected = []
    for rows in streams[:40].tolist():
        finder, misses = NearMissFinder(labels, config), []
        for i, row in enumerate(rows):
            if i % 40 == 39:
                finder.settle()
            near = finder.push(i / 10, row)
            misses.append(near and near._asdict())
        expected.append(misses)
    assert page.evaluate(NEAR, argument) == expected
    assert sum(miss is not None for misses in expected for miss in misses) > 20


def test_sensitivities_and_thresholds_are_pythons(page, shipped):
    own = chosen_for(shipped)
    thresholds = [0.3, 0.9]
    settings = page.evaluate(SETTINGS, {"config": own.to_dict(), "thresholds": thresholds})
    expected = [
        *(with_sensitivity(own, SENSITIVITIES[name]) for name in ("low", "medium", "high")),
        *map(own.with_thresholds, thresholds),
    ]
    for got, config in zip(settings, expected, strict=True):
        wanted = config.to_dict()
        assert got.pop("thresholds") == pytest.approx(wanted.pop("thresholds"), rel=1e-12)
        assert got == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("rate", [48_000, 44_100, 8_000])
def test_the_resampler_agrees_with_soxr_whatever_the_pieces(page, rate):
    rng = np.random.default_rng(3)
    time = np.arange(rate // 2) / rate
    pitches = rng.uniform(50, 0.46 * min(rate, 16_000), 12)
    tones = np.sin(2 * np.pi * pitches[:, None] * time + rng.uniform(0, 6, (12, 1)))
    sound = (0.05 * np.hanning(len(time)) * tones.sum(axis=0)).astype(np.float32)
    if rate > 16_000:  # above what 16 kHz can hold: must not come down as another tone
        sound += (0.05 * np.hanning(len(time)) * np.sin(2 * np.pi * 9_000 * time)).astype("f4")
    argument = {"samples": sound.tolist(), "from": rate}
    by_pieces = page.evaluate(RESAMPLE, {**argument, "sizes": [1, 441, 700]})
    at_once = page.evaluate(RESAMPLE, {**argument, "sizes": [len(sound)]})
    expected = soxr.resample(sound, rate, 16_000, "VHQ")
    assert by_pieces == at_once
    assert len(at_once) == len(expected)
    assert np.abs(np.array(at_once) - expected).max() < 1e-3


def test_what_a_page_is_told_is_what_a_page_of_the_server_is_told(page):
    """Levels, hints, near misses, detections, and where sound was lost."""
    rng = np.random.default_rng(5)
    loud = [(0, 6), (0.3, 1.2), (0.003, 1.5), (0.3, 0.9), (1.2, 1), (0.02, 5), (0.001, 6)]
    sound = np.concatenate([a * rng.uniform(-1, 1, round(16_000 * s)) for a, s in loud])
    pcm = np.clip(np.round(32_768 * sound), -32_768, 32_767).astype(np.int16)
    pieces: list[tuple[np.ndarray, float]] = []
    at = 0
    while at < len(pcm):
        size = int(rng.choice([800, 1600]))
        pieces.append((pcm[at : at + size], 0.35 if 80 < len(pieces) < 84 else 0.0))
        at += size
    recognizer = by_loudness()
    listener = Listener(recognizer)
    expected = [m for piece, lost in pieces for m in listener.push(piece.tobytes(), 16_000, lost)]
    expected += listener.end()
    about = {
        "labels": recognizer.labels,
        "features": recognizer.features.to_dict(),
        "decoder": {},
    }
    argument = [
        {"pcm": b64encode(piece.tobytes()).decode(), "lost": lost} for piece, lost in pieces
    ]
    found = page.evaluate(LISTEN, {"about": about, "pieces": argument})
    assert [m["type"] for m in found] == [m["type"] for m in expected]
    assert {"detection", "step"} <= {m["type"] for m in expected}
    assert len({m.get("hint", "") for m in expected}) == 4
    for got, wanted in zip(found, expected, strict=True):
        assert {k: v for k, v in got.items() if k != "probabilities"} == pytest.approx(
            {k: v for k, v in wanted.items() if k != "probabilities"}, abs=2e-4
        )
        assert got.get("probabilities") == pytest.approx(wanted.get("probabilities"), abs=2e-3)
