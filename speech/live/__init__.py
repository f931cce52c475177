"""Sound that has no end: microphones, long recordings, and what is detected in them."""
