"""From a model to a file and back: .keras, ONNX and LiteRT."""
