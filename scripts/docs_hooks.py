"""For mkdocs: links out of docs/ lead to the repository where one is named (`repo_url`), and are plain text where none is."""

from __future__ import annotations

import re
from typing import Any

OUT = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    repository = (config.get("repo_url") or "").rstrip("/")

    def link(found: re.Match[str]) -> str:
        text, path = found.groups()
        return f"[{text}]({repository}/blob/HEAD/{path})" if repository else text

    return OUT.sub(link, markdown)
