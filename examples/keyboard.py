"""Press keys by voice: say up, down, left, right, go (Enter), stop (Escape), yes or no.

python examples/keyboard.py                prints the keys that it would press
python examples/keyboard.py --press        presses them, in whatever window has the focus
python examples/keyboard.py --wav FILE     a recording in place of the microphone

--press needs the package pynput, and on macOS the permission to control the computer.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import speech

KEYS = {
    "up": "up", "down": "down", "left": "left", "right": "right",
    "go": "enter", "stop": "esc", "yes": "y", "no": "n",
}  # fmt: skip


def keyboard() -> Callable[[str], None]:
    """What presses and releases a key of this name."""
    from pynput.keyboard import Controller, Key  # pip install pynput

    controller = Controller()
    return lambda key: controller.tap(getattr(Key, key, key))


def main() -> None:
    """Listen until Ctrl-C, or until the recording ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--press", action="store_true", help="press the keys")
    parser.add_argument("--wav", type=Path, help="a recording in place of the microphone")
    options = parser.parse_args()
    press = keyboard() if options.press else None
    for detection in speech.listen(options.wav):
        key = KEYS[detection.label]
        print(f"{detection.time:7.2f} s  {detection.label:5s} -> {key}", flush=True)
        if press is not None:
            press(key)


if __name__ == "__main__":
    main()
