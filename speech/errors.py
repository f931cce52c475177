"""The errors that a user can cause, each with the exit code of the command line."""


class SpeechError(Exception):
    """Base of every error whose message is meant for the user: expected, received, remedy.

    Args:
        message: The sentence.
        parameter: Name of the parameter that helps, in the function or class that the user
            called; the command line names its option. "" where none does.

    Attributes:
        exit_code: Status with which the command line exits when this error reaches it.
        parameter: As given.

    Example:
        >>> try:
        ...     speech.load("no_such_model")
        ... except speech.SpeechError as error:
        ...     print(type(error).__name__, error.exit_code)
        ModelError 5
    """

    exit_code = 1

    def __init__(self, message: str = "", *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class AudioError(SpeechError):
    """A recording could not be turned into samples.

    Example:
        >>> speech.load_audio(b"no sound")
        Traceback (most recent call last):
        ...
        speech.errors.AudioError: ... expected ... got ...
    """

    exit_code = 3


class CorpusError(SpeechError):
    """A corpus could not be downloaded, checked, unpacked or understood.

    Example:
        >>> from speech.data.datasets import parse_labels
        >>> parse_labels("yes,yes")
        Traceback (most recent call last):
        ...
        speech.errors.CorpusError: labels 'yes,yes': expected ... got ...
    """

    exit_code = 4


class ModelError(SpeechError):
    """A model could not be built, trained, read or run.

    Example:
        >>> speech.load("left.wav")
        Traceback (most recent call last):
        ...
        speech.errors.ModelError: left.wav: expected ... got ...
    """

    exit_code = 5


class MicrophoneError(SpeechError):
    """A microphone could not be opened or read.

    Example:
        >>> from speech.live.microphone import Microphone
        >>> with Microphone(999):
        ...     pass
        Traceback (most recent call last):
        ...
        speech.errors.MicrophoneError: ...
    """

    exit_code = 6


class EvidenceError(SpeechError):
    """What was asked for cannot be shown by the data at hand, so nothing was chosen."""

    exit_code = 7


class TeachError(SpeechError):
    """Words of one's own could not be taught, or their takes not be read or kept.

    Example:
        >>> from speech.teach.takes import check_label
        >>> check_label("a/b")
        Traceback (most recent call last):
        ...
        speech.errors.TeachError: the word 'a/b': expected ... got ...
    """

    exit_code = 8


class SpeechWarning(UserWarning):
    """Something that the user should know about an input that was taken all the same.

    Raised through ``warnings``, unless a function was given another way to tell it (``on_note``).
    The command line shows each as one line.
    """
