"""The page in the browser: what it shows, who speaks to it, and the server behind it."""
