"""Speak sentences without command words by espeak-ng, in many voices: speech that never trains.

    python experiments/espeak_speech.py ../shared datasets/sources/espeak

Needs the program espeak-ng. Its voices are plainly synthetic; they lengthen the speech that
thresholds are tuned on to two hours.
"""

import csv
import random
import re
import subprocess
import sys
from pathlib import Path

VOICES = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us+m1", "en-us+m3"),
    *("en-us+m7", "en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-gb+f5", "en-gb+m4"),
)
SENTENCES = 160
COMMANDS = r"\b(yes|no|know|up|down|left|right|write|on|off|stop|go|goes|going)\b"


def sentences(shared: Path) -> list[str]:
    """The texts of the synthetic and of the read sentences."""
    with (shared / "synthetic_speech" / "manifest.csv").open(encoding="utf-8") as file:
        texts = [row[1] for row in csv.reader(file) if row[0].startswith("sentences")]
    with (shared / "read_sentences" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next(name for name in rows[0] if name.lower() in ("text", "transcript", "sentence"))
    texts += [row[column] for row in rows]
    return [text.rstrip(".") for text in texts if not re.search(COMMANDS, text, re.IGNORECASE)]


def main(shared: Path, out: Path) -> None:
    """Write one WAV file a voice."""
    texts, rng = sentences(shared), random.Random(0)
    out.mkdir(parents=True, exist_ok=True)
    for voice in VOICES:
        spoken = ". ".join(rng.sample(texts, min(len(texts), SENTENCES)))
        speed, pitch = str(rng.randint(130, 210)), str(rng.randint(30, 70))
        command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w"]
        subprocess.run([*command, str(out / f"{voice}.wav"), spoken], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
