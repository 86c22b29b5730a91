"""The trace page: one file, and the policy that lets the browser run this file's script and nothing else."""

import base64
import hashlib
import re
from pathlib import Path

HTML = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def _source(tag: str) -> str:
    """The CSP source that admits the page's one inline `<tag>`."""
    match = re.search(rf"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
    digest = hashlib.sha256((match[1] if match else "").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_source('script')}; style-src {_source('style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
