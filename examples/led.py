"""Switch a lamp by voice on a Raspberry Pi: go lights it, stop puts it out.

python examples/led.py                     says when the lamp would be lit
python examples/led.py --pin 17            lights the LED at GPIO 17 (with gpiozero, which is there
                                           on Raspberry Pi OS)
python examples/led.py --on yes --off no   other words of the model

A model with the words on and off can be trained: speech train --recipe commands-12.
"""

import argparse
from pathlib import Path
from typing import Any

import speech


def main() -> None:
    """Listen until Ctrl-C, or until the recording ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pin", type=int, help="GPIO number of the LED")
    parser.add_argument("--on", default="go", help="word that lights it (default: go)")
    parser.add_argument("--off", default="stop", help="word that puts it out (default: stop)")
    parser.add_argument("--model", default="commands-8", help="name or folder of a model")
    parser.add_argument("--wav", type=Path, help="a recording in place of the microphone")
    options = parser.parse_args()
    lamp: Any = None
    if options.pin is not None:
        from gpiozero import LED

        lamp = LED(options.pin)
    for detection in speech.listen(options.wav, options.model):
        if detection.label in (options.on, options.off):
            lit = detection.label == options.on
            print(f"{detection.time:7.2f} s  {'on' if lit else 'off'}", flush=True)
            if lamp is not None:
                lamp.value = lit


if __name__ == "__main__":
    main()
