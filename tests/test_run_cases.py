"""The command, as it is run by hand: from any folder, on files good, changed and strange."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run_cases import DIFFERENT, EQUAL, UNRECOGNISED, main

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize("name", ["metrics.json", "decode.json"])
def test_worked_cases(name, capsys):
    assert main([str(CASES / name)]) == EQUAL
    assert "all equal" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["metrics.json", "decode.json"])
def test_from_another_folder(name, tmp_path):
    command = [sys.executable, str(Path(__file__).parent / "run_cases.py"), str(CASES / name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={}, check=False)
    assert (done.returncode, done.stderr) == (EQUAL, "")


def test_differences(tmp_path, capsys):
    metrics = json.loads((CASES / "metrics.json").read_text())
    metrics["pointing_protocol"]["expected"]["f1"] = 0.5
    decode = json.loads((CASES / "decode.json").read_text())
    decode["cases"][0]["expect"]["dropped"] = 7
    path = tmp_path / "both.json"
    path.write_text(json.dumps(metrics | decode))
    assert main([str(path)]) == DIFFERENT
    said = capsys.readouterr().out
    assert "pointing_protocol pointing f1: expected 0.5" in said
    assert decode["cases"][0]["name"] in said
    assert "29 decode cases, 74 numbers of 480 metric cases" in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        "3",
        '{"cases": []}',
        '{"cases": {}}',
        '{"cases": [{"name": "x"}]}',
        '{"cases": [1]}',
        '{"cases": 1}',
        '{"per_image_protocol": {}}',
        b"\xff\xfe",
    ],
)
def test_unrecognised(text, tmp_path, capsys):
    path = tmp_path / "file.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main([str(path)]) == UNRECOGNISED
    assert capsys.readouterr().err


def test_no_such_file_and_no_file(tmp_path):
    assert main([str(tmp_path / "absent.json")]) == UNRECOGNISED
    assert main([str(tmp_path)]) == UNRECOGNISED
    assert main([]) == UNRECOGNISED
