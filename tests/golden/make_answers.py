"""Makes answers.json beside it: what the bundled model says of the two example recordings.

Usage: python tests/golden/make_answers.py

tests/test_golden_answers.py holds every way to an answer against this file. Make it anew only with
another model; ``model_sha256`` says which one it is of.
"""

from pathlib import Path

import speech
from speech.files import sha256, write_json

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "speech" / "web" / "static" / "examples"
MODEL = HERE.parents[1] / "saved_models" / "commands-8" / "model.onnx"
ANSWERS = HERE / "answers.json"


def main() -> None:
    """Write the file."""
    recognizer = speech.load(MODEL)
    recordings = {}
    for path in sorted(EXAMPLES.iterdir()):
        recordings[path.name] = {
            "probabilities": recognizer.recognize(path).probabilities,
            "detections": [
                [found.label, found.start, found.time, found.probability]
                for found in speech.scan(path, recognizer)
            ],
        }
    write_json(ANSWERS, {"model_sha256": sha256(MODEL), "recordings": recordings})


if __name__ == "__main__":
    main()
