"""``python -m speech`` is ``speech``."""

from speech.cli import main

main()
