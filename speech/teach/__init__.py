"""Words of one's own: from a few takes to a model, in seconds and without TensorFlow."""
