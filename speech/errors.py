"""The errors that a user can cause, each with the exit code of the command line."""


class SpeechError(Exception):
    """Base of every error whose message is meant for the user: expected, received, remedy.

    Args:
        message: The sentence.
        parameter: Name of the parameter that mends it, in the function or class that the user
            called; the command line names its option. "" where none does.

    Attributes:
        exit_code: Status with which the command line exits when this error reaches it.
        parameter: As given.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class AudioError(SpeechError):
    """A recording could not be turned into samples."""

    exit_code = 3


class CorpusError(SpeechError):
    """A corpus could not be downloaded, checked, unpacked or understood."""

    exit_code = 4


class ModelError(SpeechError):
    """A model could not be built, trained, read or run."""

    exit_code = 5


class MicrophoneError(SpeechError):
    """A microphone could not be opened or read."""

    exit_code = 6


class EvidenceError(SpeechError):
    """What was asked for cannot be shown by the data at hand, so nothing was chosen."""

    exit_code = 7


class SpeechWarning(UserWarning):
    """Something that the user should know about an input that was taken all the same.

    Raised through ``warnings``, unless a function was given another way to tell it (``on_note``).
    The command line shows each as one line.
    """
