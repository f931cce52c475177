"""Archives: resumable download, SHA-256 check, and safe unpacking of untrusted tar files."""

import dataclasses
import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

from speech.errors import CorpusError
from speech.progress import OnProgress, no_progress

_MAX_MEMBERS, _MAX_FILE_BYTES, _MAX_TOTAL_BYTES = 300_000, 256 * 2**20, 16 * 2**30
_MAX_HEADER_BYTES = 2**16  # a long name or a comment


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive and how to know that it is the right one: SHA-256, and its size where known."""

    url: str
    sha256: str
    bytes: int | None = None


def download(archive: Archive, folder: Path, on_progress: OnProgress = no_progress) -> Path:
    """Fetch the archive, continuing where an earlier download broke off.

    Args:
        archive: What to fetch.
        folder: Where to put it; ``NAME.part`` beside it holds an unfinished download.
        on_progress: Told bytes done and bytes in all (0 where the server does not say).

    Returns:
        The path of the archive, whose SHA-256 is the expected one.

    Raises:
        CorpusError: No answer, broken off again without any progress, another size, or another
            checksum (the file is then removed, since going on with it could never succeed).
    """
    if not archive.url.startswith(("https://", "http://")):
        raise CorpusError(
            f"{archive.url}: expected an address that begins with https:// or http://"
        )
    target = folder / PurePosixPath(archive.url).name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        _fetch(archive, part, on_progress)
        _check_archive(archive, part)
        part.replace(target)
    else:
        _check_archive(archive, target)
    return target


def _fetch(archive: Archive, part: Path, on_progress: OnProgress) -> None:
    while True:
        have = part.stat().st_size if part.exists() else 0
        try:
            total = _fetch_rest(archive, part, have, on_progress)
            reason = "the server closed the connection"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to send; the checksum will tell
                return
            raise CorpusError(f"{archive.url}: expected the archive, got {error}") from error
        except (OSError, http.client.HTTPException) as error:  # no answer, a timeout, a reset
            total, reason = -1, str(error)
        done = part.stat().st_size if part.exists() else 0
        if total in (0, done):  # a server that does not say how much has sent what it has
            return
        if done <= have:  # as long as every try brings something, go on by ourselves
            raise CorpusError(
                f"{archive.url}: the download broke off at {done:,} bytes ({reason}); "
                "run the same command again to go on from there"
            )


def _fetch_rest(archive: Archive, part: Path, have: int, on_progress: OnProgress) -> int:
    headers = {"Range": f"bytes={have}-"}
    request = urllib.request.Request(archive.url, headers=headers)  # noqa: S310 (download looked)
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        sent = response.headers.get("Content-Range", "")
        # a server that cannot resume sends all of it again
        resumed = response.status == 206 and sent.startswith(f"bytes {have}-")
        if response.status == 206 and not resumed:
            raise CorpusError(f"{archive.url}: expected bytes from {have}, got {sent!r}")
        done = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        _check_size(archive, total)
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read1(2**18):  # read() would lose what came before a break
                done += len(block)
                _check_size(archive, done, at_least=True)
                file.write(block)
                on_progress(done, total)
    return total


def _check_size(archive: Archive, size: int, at_least: bool = False) -> None:
    wanted = archive.bytes
    if wanted and size and (size > wanted if at_least else size != wanted):
        raise CorpusError(
            f"{archive.url}: expected {wanted:,} bytes, got {size:,}{' or more' * at_least}; "
            "this is another archive than the recipe's"
        )


def _check_archive(archive: Archive, path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        size = path.stat().st_size
        path.unlink()
        raise CorpusError(
            f"{archive.url}: expected SHA-256 {archive.sha256}, got {digest} ({size:,} bytes); "
            "the file was removed, run the same command again"
        )


def unpack(path: Path, target: Path, on_progress: OnProgress = no_progress) -> Path:
    """Unpack an untrusted archive: regular files inside ``target`` or nothing.

    Everything goes to a temporary folder that gets its name at the very end.

    Raises:
        CorpusError: Not a tar archive, damaged, cut short, or a member that is a link, a device,
            outside the folder, a duplicate, or over the caps on size and number.
    """
    if target.exists():
        raise CorpusError(f"{target}: expected a new folder, got one that exists; remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        inside = Path(scratch) / "corpus"
        inside.mkdir()
        try:
            with tarfile.open(path, "r|*", tarinfo=_Member) as tar:
                _unpack_members(tar, path, inside, on_progress)
        except CorpusError:
            raise
        except Exception as error:  # what tarfile stumbles over comes as errors of any kind
            raise CorpusError(f"{path}: expected a whole tar archive, got {error}") from error
        inside.rename(target)
    return target


class _Member(tarfile.TarInfo):
    """tarfile takes a broken header for the end of the archive, and reads names of any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        """The header in a block; ReadError where tarfile would stop without a word."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):  # the zeros at the end
                raise
            raise tarfile.ReadError(f"a broken or missing header ({error})") from error
        if not (member.isreg() or member.isdir()) and member.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes, over the cap")
        return member


def _unpack_members(
    tar: tarfile.TarFile, path: Path, inside: Path, on_progress: OnProgress
) -> None:
    total = count = 0
    for member in tar:
        name = PurePosixPath(member.name)
        problem = None
        if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
            problem = "a path out of the folder"
        elif not (member.isreg() or member.isdir()) or member.issparse():
            problem = "something that is not a regular file"
        elif member.size > _MAX_FILE_BYTES or total + member.size > _MAX_TOTAL_BYTES:
            problem = f"{member.size:,} bytes, over the cap"
        elif count >= _MAX_MEMBERS:
            problem = f"more than {_MAX_MEMBERS:,} files and folders"
        elif member.isreg() and (inside / name).exists():
            problem = "the same name twice"
        if problem:
            raise CorpusError(f"{path}: member {member.name!r}: {problem}; nothing was unpacked")
        count += 1
        if member.isdir():
            (inside / name).mkdir(parents=True, exist_ok=True)
            continue
        content = tar.extractfile(member)
        assert content is not None  # a regular file has content
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        with (inside / name).open("xb") as file:
            shutil.copyfileobj(content, file)
        total += member.size
        on_progress(count, 0)
