"""Where clips come from: corpora, downloads, recordings, annotations."""
