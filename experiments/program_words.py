"""Words and prompts of Debian's programs, which people recorded: other voices and microphones.

    apt-get download tuxpaint-stamps-default ktuberling-data klettres-data
    apt-get download asterisk-core-sounds-fr-wav asterisk-core-sounds-ru-wav
    for package in *.deb; do dpkg -x "$package" unpacked; done
    python experiments/program_words.py unpacked datasets/sources

``program_words`` is for training: names of animals and things in twenty languages, a person each
or several, none of them a command; the loudest second of each. ``programs`` is for measuring only:
letters and syllables of KLettres, and what Asterisk says
on the telephone in two languages that do not have the word ``no``. The recordings are free
software (GPL-2+; Asterisk's CC BY-SA 3.0).
"""

import random
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from speech.audio import load_audio
from speech.errors import AudioError

RATE = 16_000
MOST = 350  # of a package and language, so that no person stands for all
# What names a file whose word might be a command, in whatever language.
COMMANDS = re.compile(
    r"(?<![a-z])(yes|yeah|no|know|now|non|nao|up|upp|ap|down|left|right|write|stop|halt|go|on|off|"
    r"arrow\w*|sign\w*|yield|xing|conf|vm-no|vm-yes|demo-nogo)(?![a-z])",
    re.IGNORECASE,
)


def language(path: Path) -> str:
    """The language of a file: a folder's name, or the end of the file's."""
    if "tuxpaint" in path.parts:
        return path.name.rpartition("desc")[2].strip("_").partition(".")[0] or "en"
    parts = [p for p in path.parts if re.fullmatch(r"[a-z]{2,3}([_@]\w+)?(_f_\w+|_m_\w+)?", p)]
    return parts[-1].replace("@", "-") if parts else "xx"


def recordings(folder: Path, program: str, pattern: str) -> dict[str, list[Path]]:
    """The files of a program by language, without those that may be commands."""
    found = defaultdict(list)
    for path in sorted(folder.glob(f"usr/share/{program}/{pattern}")):
        if path.is_file() and not COMMANDS.search(path.stem.replace("_", " ")):
            found[f"{program}-{language(path)}"].append(path)
    return found


def read(path: Path) -> npt.NDArray[np.float32]:
    """A recording, float32 (n,); of the empty ones that some packages have, nothing."""
    try:
        return load_audio(path, RATE, max_seconds=600)
    except AudioError:
        return np.zeros(0, np.float32)


def loudest_second(path: Path) -> npt.NDArray[np.float32] | None:
    """The second with the most energy, float32 (16000,); shorter recordings as they are."""
    waveform = read(path)
    if len(waveform) > RATE:
        energy = np.cumsum(waveform.astype(np.float64) ** 2)
        first = int(np.argmax(energy[RATE:] - energy[:-RATE]))
        waveform = waveform[first : first + RATE]
    return waveform if len(waveform) >= RATE // 10 and np.abs(waveform).max() > 1e-3 else None


def main(unpacked: Path, out: Path) -> None:
    """Write the words that train, and those that measure."""
    rng = random.Random(0)
    train = recordings(unpacked, "tuxpaint", "stamps/**/*desc*.ogg")
    train |= recordings(unpacked, "ktuberling", "sounds/**/*.ogg")
    for kind, found in {
        "program_words/_unknown_": train,
        "programs/klettres/syllable": recordings(unpacked, "klettres", "**/*.ogg"),
    }.items():
        (out / kind).mkdir(parents=True, exist_ok=True)
        for person, paths in sorted(found.items()):
            for number, path in enumerate(rng.sample(paths, min(MOST, len(paths)))):
                waveform = loudest_second(path)
                if waveform is not None:
                    target = out / kind / f"{person}_nohash_{number}.ogg"
                    soundfile.write(target, waveform, RATE, format="OGG", subtype="OPUS")
    for person, paths in sorted(
        recordings(unpacked, "asterisk", "sounds/[fr][ru]_*/**/*.wav").items()
    ):
        waves = [read(path) for path in paths]
        folder = out / "programs" / "asterisk" / "speech"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{person}.flac"
        soundfile.write(target, np.concatenate(waves), RATE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
