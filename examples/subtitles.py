"""Write the commands in a film or a recording as subtitles (SubRip), each while it is spoken.

python examples/subtitles.py VIDEO subtitles.srt

Sound files are read directly. The sound of a film is taken out by ffmpeg, which must be installed.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import speech
from speech.audio_files import SUFFIXES


def main() -> None:
    """Scan the film and write the subtitles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path, help="a film, or a recording")
    parser.add_argument("subtitles", type=Path, help="the .srt file to write")
    parser.add_argument("--model", default="commands-8", help="name or folder of a model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound = options.video
        if sound.suffix.lower() not in SUFFIXES:
            sound = Path(folder) / "sound.wav"
            command = ["ffmpeg", "-v", "error", "-i", str(options.video), "-ac", "1", str(sound)]
            subprocess.run(command, check=True)
        found = list(speech.scan(sound, options.model))
    options.subtitles.write_text("\n".join(map(subtitle, range(1, len(found) + 1), found)), "utf-8")
    print(f"{options.subtitles}: {len(found)} commands")


def subtitle(number: int, detection: speech.Detection) -> str:
    """One numbered entry of a SubRip file."""
    return f"{number}\n{clock(detection.start)} --> {clock(detection.time)}\n{detection.label}\n"


def clock(seconds: float) -> str:
    """A time as SubRip writes it: 00:01:02,345."""
    milliseconds = round(1000 * max(seconds, 0.0))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


if __name__ == "__main__":
    main()
