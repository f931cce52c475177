"""The page from a checkout or a Hugging Face Space; ``speech app`` is the same command."""

import sys

from speech.cli.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["app"]
    main()
