"""The page: what a browser shows, and the server behind it."""
