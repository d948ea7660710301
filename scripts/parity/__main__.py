"""python -m parity: make goldens of model families, or compare them with new ones."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from parity import goldens
from parity.toy import Toy

TOLERANCE = 2e-4
CLIP = "clip.mp4"


def toys() -> dict[str, Toy]:
    """Return all families that have goldens."""
    from parity import internvl, llava_pooled, qwen, smolvlm

    families = (qwen, internvl, smolvlm, llava_pooled)
    return {toy.name: toy for family in families for toy in family.TOYS}


def main() -> int:
    """Make or check."""
    parser = argparse.ArgumentParser(prog="python -m parity", description=__doc__)
    parser.add_argument("command", choices=["make", "check"])
    parser.add_argument("families", nargs="*", help="All of them if none is named.")
    parser.add_argument("--out", type=Path, required=True, help="The folder of goldens.")
    given = parser.parse_args()
    known = toys()
    unknown = sorted(set(given.families) - set(known))
    if unknown:
        parser.error(f"no family {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in given.families or known]
    if given.command == "make":
        for toy in chosen:
            goldens.make(toy, given.out / CLIP, given.out / toy.name)
        return 0
    return check(chosen, given.out)


def check(chosen: list[Toy], folder: Path) -> int:
    """Make goldens anew in a temporary folder, and compare; 1 if they differ."""
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for toy in chosen:
            made = Path(temporary) / toy.name
            goldens.make(toy, folder / CLIP, made)
            print("\n".join(goldens.compare(folder / toy.name, made)))
            failed += goldens.worst(folder / toy.name, made) > TOLERANCE
    print(f"{len(chosen) - failed} of {len(chosen)} families as committed (within {TOLERANCE:g})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
