"""``python -m speech`` is ``speech``."""

from speech.cli.main import main

main()
