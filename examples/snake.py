"""Snake in the terminal, steered by voice: up, down, left, right; stop and go; no ends the game.

python examples/snake.py
python examples/snake.py --wav FILE        a recording in place of the microphone

The game's clock is that of the sound, so one loop is enough: between two words a live session tells
the time about ten times a second.
"""

import argparse
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import speech
from speech.live import session, sources

DIRECTIONS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}
STEP_SECONDS = 0.5
CLEAR = "\033[H\033[J"  # to the upper left corner, and erase what is below

Cell = tuple[int, int]


class Snake:
    """A snake in a field without walls; it eats, grows, and must not bite itself.

    Args:
        width: Of the field, in cells.
        height: Of the field, in cells.
        seed: Of where food appears.
    """

    def __init__(self, width: int = 24, height: int = 12, seed: int | None = None) -> None:
        self.width, self.height = width, height
        self.body: list[Cell] = [(width // 2 - i, height // 2) for i in range(3)]  # head first
        self.direction = "right"
        self.paused = self.over = False
        self._random = random.Random(seed)
        self.food = self._free_cell()

    @property
    def score(self) -> int:
        """How often it has eaten."""
        return len(self.body) - 3

    def obey(self, word: str) -> None:
        """Turn, pause or end; a snake cannot turn into its own neck."""
        if word in DIRECTIONS and self._next_head(word) != self.body[1]:
            self.direction = word
        elif word in ("stop", "go"):
            self.paused = word == "stop"
        elif word == "no":
            self.over = True

    def step(self) -> None:
        """Move by one cell."""
        if self.paused or self.over:
            return
        head = self._next_head(self.direction)
        grows = head == self.food
        self.over = head in (self.body if grows else self.body[:-1])
        self.body = [head, *(self.body if grows else self.body[:-1])]
        if grows:
            self.food = self._free_cell()

    def draw(self) -> str:
        """The field as text."""
        rows = [["."] * self.width for _ in range(self.height)]
        for x, y in self.body:
            rows[y][x] = "o"
        rows[self.food[1]][self.food[0]] = "*"
        rows[self.body[0][1]][self.body[0][0]] = "O"
        return "\n".join(map("".join, rows))

    def _next_head(self, direction: str) -> Cell:
        (x, y), (dx, dy) = self.body[0], DIRECTIONS[direction]
        return (x + dx) % self.width, (y + dy) % self.height

    def _free_cell(self) -> Cell:
        cells = [(x, y) for x in range(self.width) for y in range(self.height)]
        return self._random.choice([cell for cell in cells if cell not in self.body])


def live_items(wav: Path | None) -> Iterator[session.Item]:
    """Detections, and between them a ``Status`` about ten times per second of sound."""
    recognizer = speech.load()
    with contextlib.ExitStack() as stack:
        if wav is not None:
            blocks = sources.file_blocks(wav)
        else:
            blocks = stack.enter_context(sources.microphone_blocks())
        yield from session.run(blocks, session.decoder_for(recognizer))


def main() -> None:
    """Play until the snake bites itself, somebody says no, or the sound ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wav", type=Path, help="a recording in place of the microphone")
    parser.add_argument("--seed", type=int, help="of where food appears")
    options = parser.parse_args()
    game, due, word = Snake(seed=options.seed), STEP_SECONDS, "say up, down, left or right"
    for item in live_items(options.wav):
        if isinstance(item, speech.Detection):
            word = item.label
            game.obey(word)
        while item.time >= due:
            due += STEP_SECONDS
            game.step()
            print(f"{CLEAR}{game.draw()}\nscore {game.score}   {word}", flush=True)
        if game.over:
            break
    print(f"The game is over. Score: {game.score}")


if __name__ == "__main__":
    main()
