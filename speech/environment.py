"""Process-wide state: what the package sets up for the libraries below it, before they start."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from speech.errors import SpeechError

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_NOTICE = (
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called"
    rb"|[IW]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] "  # absl: level and date, time, thread, file
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IW] [\w./-]+:\d+\] "  # TensorFlow's own
    rb"|To enable the following instructions: .*, rebuild TensorFlow "  # a second line of one
)


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Keep TensorFlow's notices about the processor off standard error, and nothing else.

    It writes them to the descriptor before it reads ``TF_CPP_MIN_LOG_LEVEL``, on some processors
    only. All that is written meanwhile, by whomever, is put aside; what is no notice, an error or
    a text that nobody has foreseen, comes out at the end, also when there is an exception. Should
    the process be killed meanwhile, Python says where. The descriptor belongs to the whole
    process: only one thread at a time may be in here.
    """
    import faulthandler
    import re
    import tempfile

    with contextlib.ExitStack() as stack:
        try:
            real = os.dup(2)
            stack.callback(os.close, real)
            aside = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # nobody listens, or there is no room: then as it comes
            yield
            return
        if not faulthandler.is_enabled():
            faulthandler.enable(real)
            stack.callback(faulthandler.disable)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            aside.seek(0)
            kept = [line for line in aside if not re.match(_NOTICE, line)]
            with contextlib.suppress(OSError), open(2, "wb", closefd=False) as stderr:
                stderr.writelines(kept)


class _TensorFlowFinder:
    """Finds TensorFlow for whoever imports it first, in this package or above, and hushes it.

    Python's lock on the module lets one thread in at a time, and none once it is imported.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def quietly(module: ModuleType) -> None:
            # whoever asks for its notices gets all of them; 1 asks for none, and is what JAX, which
            # Keras imports where it is installed, sets for this process and those it starts
            asked = os.environ.setdefault(_LEVEL, "3") == "0"
            with contextlib.nullcontext() if asked else without_notices():
                execute(module)

        loader.exec_module = quietly
        return spec


def prepare() -> None:
    """Set up what every use of the package needs; a second call changes nothing."""
    # On Linux and macOS ONNX Runtime keeps a number of the device and tells its makers of every
    # model that is opened, unless it finds this when it starts
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if _TensorFlowFinder not in sys.meta_path:
        sys.meta_path.insert(0, _TensorFlowFinder)


def quiet_gradio() -> None:
    """Keep Gradio from reporting that it is used; call it before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def quiet_ray() -> None:
    """Keep Ray from reporting that it is used, and from bars and banners of its own.

    Call it before Ray is imported; the processes that Ray starts inherit it.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns that it will


def prepare_server(*, public: bool) -> None:
    """Set up what Gradio, matplotlib and NumPy need to serve a page.

    Args:
        public: Whether the page is also to be reached through Gradio's servers.

    Raises:
        SpeechError: There is no folder for temporary files.
    """
    import platformdirs

    limit_blas()
    uploads = os.environ.get("GRADIO_TEMP_DIR") or str(private_folder("uploads"))
    os.environ["GRADIO_TEMP_DIR"] = uploads
    pictures = platformdirs.user_config_path("matplotlib")
    if not os.environ.get("MPLCONFIGDIR") and not _is_usable(pictures):
        # else matplotlib takes another folder by itself, and warns of that in three lines
        os.environ["MPLCONFIGDIR"] = str(Path(uploads) / "matplotlib")
    if not public:
        # Gradio asks the page that it serves whether it is there, which no proxy can answer
        os.environ["NO_PROXY"] = "*"


def cache_folder() -> Path:
    """The user's folder for decoded corpora; the variable ``SPEECH_CACHE`` names another."""
    import platformdirs

    chosen = os.environ.get("SPEECH_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("speech-commands"))


def private_folder(purpose: str) -> Path:
    """A temporary folder that only this user can read, and that lasts: one for each purpose.

    Raises:
        SpeechError: There is no folder for temporary files.
    """
    import stat
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir()) / f"speech-commands-{purpose}-{user}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and (os.name == "nt" or status.st_uid == user):
            folder.chmod(0o700)
            return folder
        # the name is somebody else's
        return Path(tempfile.mkdtemp(prefix=f"speech-commands-{purpose}-"))
    except OSError as error:
        raise SpeechError(
            f"expected a folder for temporary files, got the error {error.strerror!r}; name one "
            "that can be written in the environment variable TMPDIR"
        ) from error


def _is_usable(folder: Path) -> bool:
    """Whether files can be written in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def give_numba_a_cache() -> None:
    """Name a folder for the code that numba compiles, where the user's home cannot be written.

    numba, which librosa needs, refuses to be imported otherwise. The folder has to be the user's
    own: what lies in it is executed.
    """
    if "NUMBA_CACHE_DIR" in os.environ or os.access(os.environ.get("HOME", ""), os.W_OK):
        return
    folder = str(private_folder("numba"))
    os.environ["NUMBA_CACHE_DIR"] = folder
    if "numba" in sys.modules:  # it has read the variable already
        sys.modules["numba"].config.CACHE_DIR = folder


def share_cores() -> None:
    """Give the network all cores but one, and its data that one; what the user has set stays.

    Call it before anything imports Keras: TensorFlow reads its part when it starts. The data are
    made by one thread. NumPy's BLAS would help it with a thread for every core, and these wait for
    the next product in a loop: for a tenth of the data's work they kept both cores of a small
    machine busy, and took a quarter of its speed from the network (docs/recipe.md). With one, sums
    also come in one order on every machine.
    """
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    limit_blas()


def limit_blas() -> None:
    """Let NumPy's BLAS compute with one thread, unless the user has set how many.

    The products here are small: with two threads, which wait for each other in a loop, looking
    inside a clip took 20 times the processor time.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "numpy" in sys.modules:  # it has read the variable already
        from threadpoolctl import threadpool_limits

        threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]), "blas")


def command_line() -> str:
    """The command that is running, as a user would type it."""
    program = Path(sys.argv[0])
    name = "speech" if program.stem in ("speech", "__main__") else f"python {program.name}"
    return shlex.join([*name.split(), *sys.argv[1:]])
