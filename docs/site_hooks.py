"""What `mkdocs build` does besides: the README is the first page; files outside of docs/ are named.

A page of the site cannot link to a file of the repository, so such a link becomes the file's path.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(?:#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page."""
    text = (PROJECT / "README.md").read_text("utf-8")
    inside = re.sub(r"\]\(docs/", "](", text)
    outside = re.sub(r"(?<!!)\]\((?!https?:|#|[\w-]+\.(?:md|png|svg|gif|webp))", "](../", inside)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        outside = outside.replace(f"]({name})", f"](../{name})")
    files.append(File.generated(config, "index.md", content=outside))
    return files


def on_page_markdown(markdown: str, **_context: Any) -> str:
    """Turn links to files outside of docs/ into text."""

    def as_text(match: re.Match[str]) -> str:
        path = match[2].lstrip("./")
        return match[1] if path in match[1] else f"{match[1]} (`{path}`)"

    return LINK.sub(as_text, markdown)
