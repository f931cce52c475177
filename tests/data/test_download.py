"""The laws of speech.data.download: the right bytes or none, and nothing outside the folder."""

import hashlib
import io
import itertools
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from speech.data import datasets
from speech.data import download as archive_module
from speech.data.corpus import index_corpus
from speech.data.download import Archive, download, unpack
from speech.errors import CorpusError

Refused = Callable[..., str]
CONTENT = bytes(itertools.islice(itertools.cycle(range(251)), 600_000))


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is what some tests want."""


class Site:
    """A web server with one file and moods; ``ranges`` are the Range headers that came.

    Attributes:
        content: The body of the file.
        breaks: How many bytes the next answers send before they break off; then all.
        ranged: Whether it understands Range.
        moved: Added to the first byte of a range: an answer to another question.
        length: "known", "unknown" (until the connection closes) or "chunked".
        status: Sent instead of the file where it is an error.
        greeting: Sent instead of HTTP.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.breaks: list[int] = []
        self.ranged, self.moved, self.length, self.status = True, 0, "known", 200
        self.greeting = b""
        self.ranges: list[str | None] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/data/corpus.tar.gz"

    def archive(self, size: int | None = None) -> Archive:
        return Archive(self.url, hashlib.sha256(self.content).hexdigest(), size)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.ranges.append(asked)
        request.close_connection = True
        if self.greeting:
            request.wfile.write(self.greeting)
            return
        if self.status != 200:
            request.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if self.ranged else 0
        if start and start >= len(self.content):
            request.send_error(416)
            return
        start += self.moved
        body = self.content[start:]
        request.send_response(206 if self.ranged else 200)
        if self.ranged:
            total = len(self.content)
            request.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.length == "known":
            request.send_header("Content-Length", str(len(body)))
        elif self.length == "chunked":
            request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        cut = self.breaks.pop(0) if self.breaks else None
        if self.length == "chunked":
            request.wfile.write(f"{len(body):x}\r\n".encode() + body[:cut])
            request.wfile.write(b"\r\n0\r\n\r\n" if cut is None else b"")
        else:
            request.wfile.write(body[:cut])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


def part_of(folder: Path, content: bytes) -> Path:
    part = folder / "corpus.tar.gz.part"
    part.write_bytes(content)
    return part


# --- download ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_download_is_the_whole_file_and_nothing_else(
    site: Site, tmp_path: Path, size: int | None
) -> None:
    seen: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "folder"
    path = download(site.archive(size), folder, lambda done, total: seen.append((done, total)))
    assert path == folder / "corpus.tar.gz"
    assert path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]
    assert site.ranges == ["bytes=0-"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_finished_download_is_checked_and_not_fetched_again(site: Site, tmp_path: Path) -> None:
    download(site.archive(), tmp_path)
    download(site.archive(), tmp_path)
    assert len(site.ranges) == 1


@pytest.mark.parametrize("length", ["known", "chunked"])
def test_a_download_that_breaks_off_goes_on_exactly_where_it_stopped(
    site: Site, tmp_path: Path, length: str
) -> None:
    site.length = length
    site.breaks = [1, 200_000, 70_000]
    seen: list[int] = []
    path = download(site.archive(), tmp_path, lambda done, total: seen.append(done))
    assert path.read_bytes() == CONTENT
    assert site.ranges == ["bytes=0-", "bytes=1-", "bytes=200001-", "bytes=270001-"]
    assert seen == sorted(seen)


def test_what_an_earlier_run_has_fetched_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    part_of(tmp_path, CONTENT[:123_456])
    assert download(site.archive(), tmp_path).read_bytes() == CONTENT
    assert site.ranges == ["bytes=123456-"]


def test_a_download_that_brings_nothing_more_stops_and_the_next_run_goes_on(
    site: Site, tmp_path: Path
) -> None:
    site.breaks = [300_000, 0]
    with pytest.raises(CorpusError, match=r"broke off at 300,000 bytes .+ run the same command"):
        download(site.archive(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.tar.gz.part"]
    assert download(site.archive(), tmp_path).read_bytes() == CONTENT
    assert site.ranges == ["bytes=0-", "bytes=300000-", "bytes=300000-"]


def test_a_download_that_was_complete_when_its_run_died_is_taken(
    site: Site, tmp_path: Path
) -> None:
    part_of(tmp_path, CONTENT)
    assert download(site.archive(), tmp_path).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(
    site: Site, tmp_path: Path
) -> None:
    site.ranged = False
    part_of(tmp_path, b"from another server")
    site.breaks = [400_000]
    assert download(site.archive(), tmp_path).read_bytes() == CONTENT
    assert site.ranges == ["bytes=19-", "bytes=400000-"]


def test_an_answer_to_another_range_is_not_appended(site: Site, tmp_path: Path) -> None:
    part = part_of(tmp_path, CONTENT[:1_000])
    site.moved = 5
    with pytest.raises(CorpusError, match="expected bytes from 1000, got 'bytes 1005-"):
        download(site.archive(), tmp_path)
    assert part.read_bytes() == CONTENT[:1_000]


@pytest.mark.parametrize("length", ["unknown", "chunked"])
def test_a_server_that_does_not_say_how_much_comes_is_read_to_its_end(
    site: Site, tmp_path: Path, length: str
) -> None:
    site.length = length
    for ranged in (True, False):
        site.ranged = ranged
        folder = tmp_path / str(ranged)
        assert download(site.archive(), folder).read_bytes() == CONTENT
    assert len(site.ranges) == 2


def test_another_checksum_is_refused_and_leaves_nothing(
    site: Site, tmp_path: Path, refused: Refused
) -> None:
    wanted = Archive(site.url, "0" * 64)
    message = refused(CorpusError, lambda: download(wanted, tmp_path))
    assert "0" * 64 in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert not list(tmp_path.iterdir())


def test_a_finished_file_of_another_checksum_is_refused_and_removed(
    site: Site, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "corpus.tar.gz").write_bytes(b"half of it")
    refused(CorpusError, lambda: download(site.archive(), tmp_path))
    assert not list(tmp_path.iterdir())
    assert download(site.archive(), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_archive_is_no_dead_end(site: Site, tmp_path: Path) -> None:
    part_of(tmp_path, CONTENT + b"more")
    with pytest.raises(CorpusError, match="SHA-256"):
        download(site.archive(), tmp_path)
    assert download(site.archive(), tmp_path).read_bytes() == CONTENT


def test_an_archive_of_another_size_is_refused_before_it_is_fetched(
    site: Site, tmp_path: Path, refused: Refused
) -> None:
    refused(CorpusError, lambda: download(site.archive(599_999), tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_body_without_end_fills_no_disk(site: Site, tmp_path: Path, refused: Refused) -> None:
    site.length = "unknown"
    refused(CorpusError, lambda: download(site.archive(100_000), tmp_path))
    assert (tmp_path / "corpus.tar.gz.part").stat().st_size <= 100_000


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_of_the_server_is_named(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(CorpusError, match=rf"{site.url}: .+ HTTP Error {status}"):
        download(site.archive(), tmp_path)


def test_no_server_and_no_http_are_named(site: Site, tmp_path: Path) -> None:
    site.greeting = b"220 ready to talk about something else\r\n"
    with pytest.raises(CorpusError, match="broke off at 0 bytes"):
        download(site.archive(), tmp_path)
    site.server.shutdown()
    site.server.server_close()
    with pytest.raises(CorpusError, match=r"broke off at 0 bytes .+refused"):
        download(site.archive(), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://somewhere/corpus.tar", "corpus.tar"])
def test_only_the_web_is_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="https://"):
        download(Archive(url, "0" * 64), tmp_path)


# --- unpack --------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def pack(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for one in members:
            if isinstance(one, tuple):
                tar.addfile(member(one[0], size=len(one[1])), io.BytesIO(one[1]))
            else:
                tar.addfile(one, io.BytesIO(b"x" * one.size))
    return path


GOOD = ("yes/a.wav", b"abc")
ZOO: dict[str, list[tarfile.TarInfo | tuple[str, bytes]]] = {
    "parent": [("../evil", b"x")],
    "parent inside": [("yes/../../evil", b"x")],
    "parent folder": [member("../evil", tarfile.DIRTYPE)],
    "absolute": [("/tmp/evil", b"x")],
    "absolute folder": [member("/tmp/evil", tarfile.DIRTYPE)],
    "backslash": [("..\\evil", b"x")],
    "symlink": [member("link", tarfile.SYMTYPE, linkname="/etc/passwd")],
    "symlink to a folder": [member("no", tarfile.SYMTYPE, linkname=".."), ("no/evil", b"x")],
    "hard link": [member("link", tarfile.LNKTYPE, linkname="yes/a.wav")],
    "hard link outside": [member("link", tarfile.LNKTYPE, linkname="../../evil")],
    "character device": [member("null", tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": [member("disk", tarfile.BLKTYPE, devmajor=8)],
    "fifo": [member("pipe", tarfile.FIFOTYPE)],
    "unknown type": [member("what", b"Z")],
    "sparse": [
        member(
            "hole",
            size=1,
            pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "999999999"},
        )
    ],
    "duplicate": [GOOD],
    "duplicate by another path": [("./yes//a.wav", b"x")],
    "file on a folder": [member("no", tarfile.DIRTYPE), ("no", b"x")],
    "folder on a file": [member("yes/a.wav", tarfile.DIRTYPE)],
    "file in a file": [("yes/a.wav/b.wav", b"x")],
    "file without a name": [("", b"x")],
    "name too long": [("x" * 300, b"x")],
}


@pytest.mark.parametrize("zoo", ZOO.values(), ids=ZOO)
def test_a_member_that_is_no_plain_file_inside_is_refused_and_leaves_nothing(
    zoo: list[tarfile.TarInfo | tuple[str, bytes]], tmp_path: Path
) -> None:
    path = pack(tmp_path / "zoo.tar.gz", GOOD, *zoo, ("yes/z.wav", b"last"))
    evil = Path("/tmp/evil")
    assert not evil.exists()
    with pytest.raises(CorpusError, match=str(path)):
        unpack(path, tmp_path / "inner" / "corpus")
    assert not evil.exists()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "zoo.tar.gz"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_plain_files_come_out_as_they_went_in(mode: str, prefix: str, tmp_path: Path) -> None:
    files = {"yes/a.wav": b"abc", "no/b.wav": b"", "list.txt": b"x" * 100_000, "x" * 120: b"long"}
    folders = [member(f"{prefix}yes", tarfile.DIRTYPE), member(f"{prefix}empty", tarfile.DIRTYPE)]
    members = [(prefix + name, content) for name, content in files.items()]
    path = pack(tmp_path / "good.tar", *folders, *members, mode=mode)
    seen: list[int] = []
    target = unpack(path, tmp_path / "deep" / "corpus", lambda done, _: seen.append(done))
    found = {p.relative_to(target).as_posix(): p for p in target.rglob("*")}
    assert {name: p.read_bytes() for name, p in found.items() if p.is_file()} == files
    assert {name for name, p in found.items() if p.is_dir()} == {"yes", "no", "empty"}
    assert list(target.parent.iterdir()) == [target]
    assert seen == sorted(seen)


def test_neither_owner_nor_permissions_of_the_archive_are_taken_over(tmp_path: Path) -> None:
    plain, odd = ("a", b"x"), member("b", size=1, mode=0o4777, uid=12345)
    target = unpack(pack(tmp_path / "t.tar", plain, odd), tmp_path / "corpus")
    a, b = (target / "a").stat(), (target / "b").stat()
    assert (a.st_mode, a.st_uid) == (b.st_mode, b.st_uid)


def test_a_target_that_exists_stays_as_it_is(tmp_path: Path, refused: Refused) -> None:
    path = pack(tmp_path / "good.tar", GOOD)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine").write_text("keep")
    refused(CorpusError, lambda: unpack(path, tmp_path / "corpus"))
    assert [p.name for p in (tmp_path / "corpus").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("cap", "value"), [("_MAX_MEMBERS", 3), ("_MAX_FILE_BYTES", 9), ("_MAX_TOTAL_BYTES", 24)]
)
def test_more_than_the_caps_is_refused_and_exactly_as_much_is_not(
    cap: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [("a", b"123456789"), ("b", b"123456789"), ("c", b"123456")]
    monkeypatch.setattr(archive_module, cap, value)
    unpack(pack(tmp_path / "just.tar", *files), tmp_path / "just")
    monkeypatch.setattr(archive_module, cap, value - 1)
    with pytest.raises(CorpusError, match=r"cap|more than"):
        unpack(pack(tmp_path / "over.tar", *files), tmp_path / "over")
    assert not (tmp_path / "over").exists()


def test_folders_count_as_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_MAX_MEMBERS", 10)
    folders = [member(f"folder{i}", tarfile.DIRTYPE) for i in range(11)]
    with pytest.raises(CorpusError, match="more than 10"):
        unpack(pack(tmp_path / "folders.tar", *folders), tmp_path / "corpus")


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_a_header_of_gigabytes_is_refused_before_it_is_read(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "header.tar"
    header = member("name", kind, size=2**32).tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(header + bytes(20_000))
    with pytest.raises(CorpusError, match="over the cap"):
        unpack(path, tmp_path / "corpus")


def noisy(n: int = 6) -> list[tuple[str, bytes]]:
    blocks = [hashlib.sha512(bytes([i, j])).digest() for i in range(n) for j in range(40)]
    return [(f"yes/{i}.wav", b"".join(blocks[40 * i : 40 * i + 40])) for i in range(n)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_that_was_cut_short_is_refused_wherever_it_was_cut(
    mode: str, tmp_path: Path
) -> None:
    whole = pack(tmp_path / "whole.tar", *noisy(), mode=mode).read_bytes()
    last = 6 * (512 + 2_560) if mode == "w" else len(whole) - 64  # what follows is padding
    # at a border of members, too, and in the middle of a header
    cuts = {0, 1, 512, 3_072, 3_072 + 100, *range(700, last, 701), last}
    cut = tmp_path / "cut.tar"
    for n in sorted(c for c in cuts if c <= last):
        cut.write_bytes(whole[:n])
        with pytest.raises(CorpusError, match="whole tar archive"):
            unpack(cut, tmp_path / "corpus")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.tar", "whole.tar"]


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "broken.tar", *noisy(), mode="w")
    content = bytearray(path.read_bytes())
    content[3_072 + 150] ^= 0xFF  # in the checksum of the second header
    path.write_bytes(content)
    with pytest.raises(CorpusError, match="whole tar archive"):
        unpack(path, tmp_path / "corpus")


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100, b"\x1f\x8b" + bytes(50)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    for path in (tmp_path / "file", tmp_path / "nowhere", tmp_path):
        with pytest.raises(CorpusError, match="expected a whole tar archive"):
            unpack(path, tmp_path / "corpus")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# --- from the recipe to the clips ----------------------------------------------------------------


def test_a_recipe_leads_to_clips(
    site: Site, tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as tar:
        tar.add(tiny_corpus, ".")
    site.content = (tmp_path / "made.tar.gz").read_bytes()
    site.breaks = [len(site.content) // 3]
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "tiny.toml").write_text(
        f'name = "tiny"\nurl = "{site.url}"\nsha256 = "{site.archive().sha256}"\n'
        f'bytes = {len(site.content)}\nlicence = "none"\nattribution = "me"\ncitation = "none"\n'
        '[label_sets.two]\nwords = ["yes", "no"]\nunknown = true\nsilence = true\n'
    )
    monkeypatch.setattr("speech.installation.PACKAGE", tmp_path / "speech")
    recipe = datasets.dataset_specs.__wrapped__()["tiny"]
    path = download(recipe.archive, tmp_path / "downloads")
    corpus = index_corpus(unpack(path, tmp_path / "corpus"))
    assert corpus.words() == ("bed", "cat", "no", "yes")
    assert len(corpus.clips) == 40
    assert len(corpus.noise) == 2
    assert not corpus.split_conflicts
    assert recipe.label_sets["two"].labels == ("yes", "no", "unknown", "silence")
