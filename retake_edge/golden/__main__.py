"""Check a folder of golden data: `python -m retake_edge.golden DIR`.

The folder holds any of dpselect, pivotkv_unit and pivotkv (.json and .npz each, the last with
tiny-f32.gguf), as the reference code produced them. The last line is `N passed, N failed`.
Exit code 0: all passed; 1: something failed; 2: bad input; 6: no patched native library.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from retake_edge.errors import ConfigError, RetakeError

DATA_SETS = ("dpselect", "pivotkv_unit", "pivotkv")


def check_folder(folder: Path, *, verbose: bool = False, on_device: bool = False) -> bool:
    """Check all data sets of a folder and print the report; return whether everything passed.

    `on_device`: whether prefills run on the device that the library finds, if any.

    Raises:
        ConfigError: the folder is missing, damaged, or holds nothing to check.
        NativeError: the patched libraries are missing.
    """
    from retake_edge.golden.dpselect import check_dpselect
    from retake_edge.golden.pivotkv import check_prefills, check_updates
    from retake_edge.golden.report import GoldenSet, Report

    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.")
    present = [name for name in DATA_SETS if _has(folder, name)]
    if not present:
        raise ConfigError(f"{folder} has nothing to check: none of {', '.join(DATA_SETS)}.")
    report = Report(verbose=verbose)
    for name in DATA_SETS:
        if name not in present:
            report.note(f"{folder} has no {name} data; the rest is checked.")
            continue
        data = GoldenSet(folder, name)
        try:
            if name == "dpselect":
                check_dpselect(data, report)
            elif name == "pivotkv_unit":
                check_updates(data, report)
            else:
                check_prefills(data, folder, report, on_device=on_device)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{folder / name}.json lacks what its cases need: {error}."
            ) from error
    report.close()
    return report.n_failed == 0


def _has(folder: Path, name: str) -> bool:
    """Return whether a data set is there; half of one is an error.

    Raises:
        ConfigError: only one of its two files is there.
    """
    files = [folder / f"{name}.{ext}" for ext in ("json", "npz")]
    missing = [f for f in files if not f.is_file()]
    if len(missing) == 1:
        raise ConfigError(f"{missing[0]} is missing; the other file of {name} is there.")
    return not missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m retake_edge.golden", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every case")
    text = "run prefills on the device that the library finds, within its own limits"
    parser.add_argument("--device", action="store_true", help=text)
    options = parser.parse_args(arguments)
    try:
        passed = check_folder(options.folder, verbose=options.verbose, on_device=options.device)
        return 0 if passed else 1
    except RetakeError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    # The matrices are tiny: BLAS threads would only wait for each other. Read once, at the first
    # import of numpy, which is why this module imports it late.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
