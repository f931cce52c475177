"""``speech scan`` over an archive, with Ray Data: names, then sound, then detections, in a stream.

Three kinds of tasks follow one another, and all of them run at once: one lists the sources, some
decode recordings and divide them, and the most ask the network. What they hand on is a block of
Ray's, which Ray keeps, moves, holds back and makes again where a machine is lost. The answers come
to this process in the order of the names, so that it alone joins the pieces and writes the tables:
once for each recording, whatever was done twice.
"""

import dataclasses
import logging
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speech.audio import open_audio
from speech.cluster import sources as places
from speech.cluster.division import Answer, Joiner, Piece, PieceDecoder, divide
from speech.cluster.engine import Origin, cluster
from speech.cluster.results import Results
from speech.detection import DecoderConfig, Detection
from speech.errors import AudioError, ModelError, SpeechError
from speech.features import FeatureConfig
from speech.files import readable_name, sha256
from speech.formats.carried import refuse_causal
from speech.formats.folder import ModelFolder
from speech.live.scan import BATCH, no_sound
from speech.live.session import decoder_for
from speech.recognizer import Recognizer, load

# One worker's share of a core in each kind of task; different, else Ray makes one task of two.
_LISTING, _DECODING, _NETWORK = 0.05, 0.1, 0.8
_BASKET_BYTES, _BASKET_FILES = 64 << 20, 64  # recordings that one task decodes
_BATCHES = 8  # in a piece: 205 s, 13 MB, which the network does in one or two
_WRITE_SECONDS = 60.0
_WRITE_RECORDINGS = 10_000

Row = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a scan is to do.

    Attributes:
        sources: Files, folders, patterns and addresses (``speech.cluster.sources.find``).
        model: The model's folder or file.
        out: Folder or address for the tables (``speech.cluster.results.Results``).
        threshold: As for ``speech.scan``.
        batches: Length of the pieces of a recording, in batches of 256 windows.
    """

    sources: tuple[str, ...]
    model: Path
    out: str
    threshold: float | None = None
    batches: int = _BATCHES


class Tally(NamedTuple):
    """How far a scan is.

    Attributes:
        recordings: Answered, those that cannot be read included.
        skipped: Found to be done already.
        unreadable: Among the answered.
        detections: In the answered.
        sound_seconds: Of the answered.
        n_bytes: Of the answered and the skipped.
        total_bytes: Of all that the sources hold; 0 while that is not known.
        seconds: Since the scan began.
    """

    recordings: int = 0
    skipped: int = 0
    unreadable: int = 0
    detections: int = 0
    sound_seconds: float = 0.0
    n_bytes: int = 0
    total_bytes: int = 0
    seconds: float = 0.0


class _Model(NamedTuple):
    """A model's file, as it travels to the workers, so that it need not lie there."""

    name: str
    content: bytes
    digest: str
    config: DecoderConfig
    origin: Origin


class _Item(NamedTuple):
    """What the tasks hand on of one recording; the last item of each has ``is_last``."""

    name: str
    content: str = ""
    n_bytes: int = 0
    piece: Piece | None = None
    answer: Answer | None = None
    error: str = ""
    is_last: bool = True


def scan(
    job: Job,
    address: str,
    *,
    on_progress: Callable[[Tally], object] = lambda _: None,
    on_note: Callable[[str], object] = lambda _: None,
    **local: Any,
) -> Tally:
    """Find the commands in all recordings of an archive, on all machines of a cluster.

    The detections of a recording are those of ``speech.scan`` to the last bit. What an earlier scan
    with the same model has written to the same place is not done again. Ctrl-C, like any other
    end, leaves the answers so far.

    Args:
        job: What is to be done.
        address: As for ``speech.cluster.engine.cluster``.
        on_progress: Is told how far it is, after each answer.
        on_note: Is told in one sentence what is odd about a source or a recording.
        **local: As for ``cluster``.

    Raises:
        AudioError: A source that holds no recording or cannot be read.
        ModelError: As ``speech.load``.
        ClusterError: As ``cluster``.
        SpeechError: The tables cannot be written.
    """
    recognizer = load(job.model)
    refuse_causal(job.model, recognizer)  # whose state cannot begin in the middle of a recording
    model = _as_sent(job, recognizer)
    results = Results(job.out, model.digest)
    with cluster(address, **local) as ray:
        # what counts them all runs beside the scan, for the time that is left
        total = ray.remote(num_cpus=0)(_total_bytes).remote(job.sources, model.origin)
        answers = _answers(ray, job, model, results.done)
        sink = _Sink(recognizer, model.config, results, on_note)
        try:
            for item in answers:
                sink.take(item)
                if not sink.tally.total_bytes and ray.wait([total], timeout=0)[0]:
                    sink.tally = sink.tally._replace(total_bytes=ray.get(total))
                on_progress(sink.progress())
        finally:
            results.write()
    return sink.progress()


def _as_sent(job: Job, recognizer: Recognizer) -> _Model:
    file = job.model if job.model.is_file() else ModelFolder(job.model).preferred
    if file is None:
        raise ModelError(f"{job.model}: expected a model, got a folder without one; check the path")
    config = decoder_for(recognizer, job.threshold).config
    return _Model(file.name, file.read_bytes(), sha256(file), config, Origin.here())


def _answers(ray: Any, job: Job, model: _Model, done: set[tuple[str, str]]) -> Iterator[_Item]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it has just set its own
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # every row is a block, and a task of what comes behind: rows are made to be that large
    context.target_max_block_size = 1
    context.execution_options.preserve_order = True
    sent, known = ray.put(model), ray.put(done)
    rows = (
        ray.data.from_items([_dump(job)])
        .flat_map(_list, fn_args=(model.origin,), num_cpus=_LISTING)
        .flat_map(_decode, fn_args=(sent, known), num_cpus=_DECODING)
        .map(_recognize, fn_args=(sent,), num_cpus=_NETWORK)
    )
    for row in rows.iter_rows():
        yield from _load(row)


# --- on the workers -------------------------------------------------------------------------------


def _dump(*items: Any) -> Row:
    return {"row": pickle.dumps(items)}


def _load(row: Row) -> Any:
    return pickle.loads(row["row"])  # noqa: S301  # a task of this job has written it


def _total_bytes(sources: Sequence[str], origin: Origin) -> int:
    try:
        origin.join()
        return sum(f.n_bytes for f in places.find(sources) if isinstance(f, places.Found))
    except SpeechError:  # the scan itself will say it
        return 0


def _list(row: Row, origin: Origin) -> Iterator[Row]:
    """Baskets of names; a sentence on a source, or why it cannot be listed, comes alone."""
    origin.join()
    job: Job = _load(row)[0]
    basket: list[places.Found] = []
    try:
        for found in places.find(job.sources):
            if isinstance(found, str):
                yield _dump(job, [_Item("", error=found, is_last=False)])
                continue
            basket.append(found)
            if len(basket) >= _BASKET_FILES or sum(f.n_bytes for f in basket) >= _BASKET_BYTES:
                yield _dump(job, basket)
                basket = []
    except AudioError as error:
        yield _dump(job, [_Item("", error=str(error))])
    if basket:
        yield _dump(job, basket)


def _decode(row: Row, sent: Any, known: Any) -> Iterator[Row]:
    """Pieces of the recordings of a basket, so many together as make one whole piece."""
    job, basket = _load(row)
    import ray

    recognizer, _, step = _opened(sent)
    features, done = recognizer.features, ray.get(known)
    waiting: list[_Item] = []
    samples = 0
    for found in basket:
        for item in _pieces(found, job, features, step, done):
            waiting.append(item)
            samples += len(item.piece.sound) if item.piece else 0
            if samples >= job.batches * BATCH * step * features.sample_rate:
                yield _dump(*waiting)
                waiting, samples = [], 0
    if waiting:
        yield _dump(*waiting)


def _pieces(
    found: places.Found | _Item,
    job: Job,
    features: FeatureConfig,
    step_seconds: float,
    done: set[tuple[str, str]],
) -> Iterator[_Item]:
    if isinstance(found, _Item):
        yield found
        return
    item = _Item(readable_name(found.name), n_bytes=found.n_bytes)
    notes: list[str] = []
    try:
        with places.at_hand(found.name) as (path, digest):
            item = item._replace(content=digest, n_bytes=path.stat().st_size)
            if (item.name, digest) in done:
                yield item
                return
            with open_audio(path, on_note=notes.append) as file:
                blocks = ((block, file.sample_rate) for block in file.blocks())
                piece = None
                for piece in divide(blocks, features, step_seconds, job.batches):
                    n_bytes = item.n_bytes if piece.is_last else file.bytes_read
                    yield item._replace(piece=piece, is_last=piece.is_last, n_bytes=n_bytes)
            if piece is None:
                raise no_sound(path)
    except AudioError as error:
        yield item._replace(error=str(error))
    for note in notes:
        yield _Item("", error=note, is_last=False)


def _recognize(row: Row, sent: Any) -> Row:
    _, decoder, _ = _opened(sent)
    return _dump(
        *(
            item if item.piece is None else item._replace(piece=None, answer=decoder(item.piece))
            for item in _load(row)
        )
    )


_OPENED: dict[str, tuple[Recognizer, PieceDecoder, float]] = {}  # once in each process


def _opened(sent: Any) -> tuple[Recognizer, PieceDecoder, float]:
    """The model that was sent, what finds detections with it, and its step in seconds."""
    import ray

    key = sent.hex()
    if key not in _OPENED:
        model: _Model = ray.get(sent)
        model.origin.join()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / model.name
            file.write_bytes(model.content)
            recognizer = load(file)
        decoder = PieceDecoder(recognizer, model.config)
        _OPENED[key] = recognizer, decoder, model.config.step_seconds
    return _OPENED[key]


# --- in the process that asked --------------------------------------------------------------------


class _Sink:
    """Joins the answers, writes them from time to time, and counts."""

    def __init__(
        self,
        recognizer: Recognizer,
        config: DecoderConfig,
        results: Results,
        on_note: Callable[[str], object],
    ) -> None:
        self.tally = Tally()
        self._joiner = Joiner(recognizer, config)
        self._results, self._on_note = results, on_note
        self._began = self._written = time.monotonic()
        self._part: tuple[float, int] = 0.0, 0  # seconds and bytes of a recording that goes on

    def progress(self) -> Tally:
        """The tally of this moment."""
        seconds, n_bytes = self._part
        return self.tally._replace(
            sound_seconds=self.tally.sound_seconds + seconds,
            n_bytes=self.tally.n_bytes + n_bytes,
            seconds=time.monotonic() - self._began,
        )

    def take(self, item: _Item) -> None:
        """The next item, in the order of the names and pieces."""
        if not item.name:  # of a source
            if item.is_last:
                raise AudioError(item.error)
            self._on_note(item.error)
        elif item.answer is None:
            self._joiner.reset()
            if item.error:
                self._on_note(item.error)
                self._count(item, 0.0, unreadable=1)
            else:
                self.tally = self.tally._replace(
                    skipped=self.tally.skipped + 1, n_bytes=self.tally.n_bytes + item.n_bytes
                )
        else:
            found = self._joiner.add(item.answer)
            self._part = item.answer.seconds, item.n_bytes
            if found is not None:
                self._count(item, item.answer.seconds, found)

    def _count(
        self, item: _Item, seconds: float, found: Sequence[Detection] = (), unreadable: int = 0
    ) -> None:
        row: dict[str, Any] = {"file": item.name, "content": item.content}
        row |= {"bytes": item.n_bytes, "seconds": seconds}
        rows = [
            {"start": d.start, "end": d.time, "label": d.label, "probability": d.probability}
            for d in found
        ]
        self._results.add(row, rows, item.error)
        self._part = 0.0, 0
        t = self.tally
        self.tally = t._replace(
            recordings=t.recordings + 1,
            unreadable=t.unreadable + unreadable,
            detections=t.detections + len(rows),
            sound_seconds=t.sound_seconds + seconds,
            n_bytes=t.n_bytes + item.n_bytes,
        )
        late = time.monotonic() - self._written > _WRITE_SECONDS
        if late or self._results.waiting >= _WRITE_RECORDINGS:
            self._results.write()
            self._written = time.monotonic()
