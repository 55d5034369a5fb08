"""Runs a file of worked cases against the code: `python tests/run_cases.py FILE`. Prints every difference; what a case means is left to decode_cases and metric_cases.

Exit code: 0 all equal, 1 differences, 2 the file cannot be read or holds no cases of a known form.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # the checkout, in place of tests/, whose packages are named like the project's

EQUAL, DIFFERENT, UNRECOGNISED = 0, 1, 2
DECODE_CASE_KEYS = ("name", "task", "width", "height", "asked", "generated", "expect")


class UnrecognisedError(ValueError):
    """A document without cases of a known form."""


def main(arguments: list[str]) -> int:
    """Compares the named file's cases. Returns the exit code."""
    if len(arguments) != 1:
        print("usage: python tests/run_cases.py FILE", file=sys.stderr)
        return UNRECOGNISED
    path = Path(arguments[0])
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _unrecognised(path, str(error))
    if not isinstance(document, dict):
        return _unrecognised(path, "not a JSON object")
    try:
        differences, compared = _compare(document)
    except UnrecognisedError as error:
        return _unrecognised(path, str(error))
    for difference in differences:
        print(difference)
    verdict = f"{len(differences)} differences" if differences else "all equal"
    print(f"{path}: compared {', '.join(compared)}: {verdict}")
    return DIFFERENT if differences else EQUAL


def _compare(document: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Differences, and what was compared."""
    from tests import metric_cases

    differences, compared = [], []
    cases = document.get("cases")
    if cases:
        for number, case in enumerate(cases if isinstance(cases, list) else [cases]):
            if not isinstance(case, dict) or not set(DECODE_CASE_KEYS) <= case.keys():
                raise UnrecognisedError(f"cases[{number}] is no decode case, which has {', '.join(DECODE_CASE_KEYS)}")
        from tests import decode_cases  # needs the tokenizer: not loaded for metrics

        differences += decode_cases.differences(document)
        compared.append(f"{len(cases)} decode cases")
    if any(section in document for section in metric_cases.SECTIONS):
        try:
            differences += metric_cases.differences(document)
            samples, numbers = metric_cases.compared(document)
        except metric_cases.CaseFormatError as error:
            raise UnrecognisedError(str(error)) from error
        compared.append(f"{numbers} numbers of {samples} metric cases")
    if not compared:
        raise UnrecognisedError(f"neither cases nor any of {', '.join(metric_cases.SECTIONS)}")
    return differences, compared


def _unrecognised(path: Path, reason: str) -> int:
    print(f"{path}: {reason}", file=sys.stderr)
    return UNRECOGNISED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
