"""Where the page is served, and what is wrong with that address or its certificate."""

import dataclasses
import ipaddress
import socket
import ssl
from pathlib import Path

from speech.errors import SpeechError

# Of documentation (RFC 5737 and 3849): nothing is sent to them, they only select an interface.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


@dataclasses.dataclass(frozen=True)
class Address:
    """Where the page is served.

    Attributes:
        host: Name or number of this machine; ``0.0.0.0`` or ``::`` for all of its numbers.
        port: Port to listen at, 1 to 65535.
        share: Whether Gradio's servers also give it a public address.
        certificate: File of the TLS certificate (PEM); None for plain HTTP.
        key: File of its private key (PEM); None where the certificate's file holds it.
        root_path: Path below which a reverse proxy shows the page, such as ``/speech``, or the
            whole address there, ``https://example.org/speech``, for a proxy that does not pass on
            the name of the host; "" without a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    certificate: Path | None = None
    key: Path | None = None
    root_path: str = ""

    def check(self) -> None:
        """Read the certificate and its key.

        Raises:
            SpeechError: They are not there, do not belong together or are encrypted, or the root
                path is none.
        """
        if self.root_path and not self.root_path.startswith(("/", "http://", "https://")):
            raise SpeechError(
                f"expected a path such as /speech or an address, got {self.root_path!r}; "
                "begin it with a slash"
            )
        if self.certificate is None and self.key is None:
            return
        if self.certificate is None:
            raise SpeechError(
                f"expected a certificate for the key {self.key}, got none; name both files"
            )
        for file in filter(None, (self.certificate, self.key)):
            if not file.is_file():
                raise SpeechError(
                    f"{file}: expected a file in PEM format, got none; check the path"
                )
        files = " and ".join(str(file) for file in (self.certificate, self.key) if file)
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # a key with a password would ask for it in the terminal
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise SpeechError(
                f"{files}: expected a certificate and its private key without a password, both "
                f"PEM, got files that do not fit ({_reason(error)}); check that they belong "
                "together and are not swapped"
            ) from error

    def warning(self) -> str:
        """A sentence on who else can reach the page, or "" where nobody can."""
        if self.share:
            return (
                "the page gets a public address through Gradio's servers, without a password; "
                "what visitors say passes through them"
            )
        if is_loopback(self.host):
            return ""
        remedy = "; their browsers allow it no microphone unless it has a certificate"
        return (
            f"others on the network can use the page at {self.host}, without a password"
            f"{'' if self.certificate else remedy}"
        )

    def for_others(self) -> list[str]:
        """The addresses at which other machines find the page; none where they cannot reach it."""
        if is_loopback(self.host):
            return []
        protocol = "https" if self.certificate else "http"
        hosts = [self.host]
        if self.host in ("0.0.0.0", "::", "[::]"):  # noqa: S104
            numbers = [f"[{number}]" if ":" in number else number for number in own_numbers()]
            hosts = numbers or [socket.gethostname()]
        return [f"{protocol}://{host}:{self.port}/" for host in hosts]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach such an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def own_numbers() -> list[str]:
    """The numbers of this machine on its networks, IPv4 first; none where it has no network."""
    numbers = []
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))  # of UDP: chooses an interface and sends nothing
                number = str(probe.getsockname()[0])
        except OSError:
            continue
        if not is_loopback(number):
            numbers.append(number)
    return numbers


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error).lower().replace("_", " ")
