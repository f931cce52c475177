"""Take the picture of the page that the README shows.

python docs/make_screenshot.py saved_models/commands-8 word.wav docs/app.png

Wants the extras train, app and dev, and Chromium. With --dark and --width it shows the other looks.
"""

import argparse
import shutil
import socket
from pathlib import Path

from playwright.sync_api import sync_playwright

import app
import speech


def main() -> None:
    """Serve the page, upload the recording, wait for the pictures, and take the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("wav", type=Path, help="recording to upload")
    parser.add_argument("png", type=Path, help="where the screenshot goes")
    parser.add_argument("--width", type=int, default=1280, help="of the window (pixels)")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    blocks = app.serve(speech.load(options.model), "127.0.0.1", port)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(
            viewport={"width": options.width, "height": 720},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("button", name="Upload file").click()
        page.locator("#recording input[type=file]").set_input_files(options.wav)
        for picture in ("Waveform of the clip", "Mel-frequency cepstral coefficients"):
            page.get_by_alt_text(picture).wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1_000)  # the player draws its own waveform a little later
        page.screenshot(path=options.png, full_page=True)
        browser.close()
    blocks.close(verbose=False)


if __name__ == "__main__":
    main()
