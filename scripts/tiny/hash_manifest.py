"""Write the SHA-256 of the bundled model's files into models/tiny.toml.

python scripts/tiny/hash_manifest.py
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

MANIFEST = Path(__file__).resolve().parents[2] / "models" / "tiny.toml"


def main() -> None:
    """Rewrite the manifest; everything but the hashes stays as it is."""
    text = MANIFEST.read_text(encoding="utf-8")

    def with_hash(entry: re.Match[str]) -> str:
        digest = hashlib.sha256((MANIFEST.parent / entry["path"]).read_bytes()).hexdigest()
        return f'path = "{entry["path"]}"\nsha256 = "{digest}"'

    MANIFEST.write_text(
        re.sub(r'path = "(?P<path>[^"]+)"\nsha256 = "[0-9a-f]*"', with_hash, text),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
