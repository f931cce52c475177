"""Recognize spoken commands: MFCCs by librosa, a stacked bidirectional LSTM by Keras.

>>> import speech
>>> recognizer = speech.load()  # the bundled model; or the folder of your own
>>> recognizer.recognize("left.wav").label
'left'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from speech import environment

if TYPE_CHECKING:
    from speech.audio import load_audio
    from speech.detection import DecoderConfig, Detection
    from speech.errors import AudioError, CorpusError, MicrophoneError, ModelError, SpeechError
    from speech.features import FeatureConfig, mfcc
    from speech.live.listen import listen, listen_async
    from speech.live.scan import scan
    from speech.recognizer import Prediction, Recognizer, load, recognize_many
    from speech.stream import StreamDecoder

    __version__: str

environment.prepare()

# imported when first used: a program that only wants load_audio pays for nothing else
_HOME = {
    "load_audio": "audio",
    "AudioError": "errors",
    "CorpusError": "errors",
    "MicrophoneError": "errors",
    "ModelError": "errors",
    "SpeechError": "errors",
    "FeatureConfig": "features",
    "mfcc": "features",
    "Prediction": "recognizer",
    "Recognizer": "recognizer",
    "load": "recognizer",
    "recognize_many": "recognizer",
    "listen": "live.listen",
    "listen_async": "live.listen",
    "scan": "live.scan",
    "DecoderConfig": "detection",
    "Detection": "detection",
    "StreamDecoder": "stream",
}
__all__ = [
    "AudioError",
    "CorpusError",
    "DecoderConfig",
    "Detection",
    "FeatureConfig",
    "MicrophoneError",
    "ModelError",
    "Prediction",
    "Recognizer",
    "SpeechError",
    "StreamDecoder",
    "listen",
    "listen_async",
    "load",
    "load_audio",
    "mfcc",
    "recognize_many",
    "scan",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # a tenth of what recognising a file takes

        return metadata.version("speech-commands")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"speech.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
