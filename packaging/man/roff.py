"""What the pages that are made share: the program they are about, and text as roff shows it."""

import sys
from pathlib import Path

# The tree this is in, as a checkout or as the source of the package: not what is installed.
TREE = next(p for p in Path(__file__).resolve().parents if (p / "immud").is_dir())
sys.path.insert(0, str(TREE))


def escape(text: str) -> str:
    """Hyphens that can be copied, no accidental requests."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith(".") else text
