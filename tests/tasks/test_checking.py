"""Which runs pass: each gate, the sentence it gives, and what becomes of runs that were staged when the program died."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from model.annotations import schema
from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import current_view, labelled_keys
from sinks.dataset.records import Plan
from tasks.checking import (
    UNCHECKED,
    GateSettings,
    held_runs,
    judge,
    judge_again,
    judge_staged_runs,
    read_checks,
    run_counts,
    scores_of,
)
from tests.model.test_checks import BESIDE, BOX, SOURCE, checks, known
from tests.sinks.dataset.outputs import FINGERPRINT, create_plan, records, shards_of, tables_of

HALF = {"a": [("dog", BOX), ("cat", BOX)], "b": [("dog", BESIDE)]}  # of TRUE, dogs half right: F1 2·2/6, dog 0.5, cat 1
TRUE = {"a": [("dog", BOX), ("cat", BOX)], "b": [("dog", BOX)]}
COUNTS = {"images": 100, "ok": 90, "truncated": 4, "malformed": 1, "unreadable": 3, "failed": 2}

# gates; words of the reason for holding, None for promotion
GATES: dict[str, tuple[dict[str, Any], tuple[str, ...] | None]] = {
    "none": ({}, None),
    "overall reached": ({"min_f1": 0.66}, None),
    "overall missed": ({"min_f1": 0.7}, ("F1 is 0.667 on 2 golden images, less than 0.7",)),
    "category reached": ({"min_f1": {"cat": 1.0, "dog": 0.5}}, None),
    "category missed": ({"min_f1": {"overall": 0.1, "dog": 0.6}}, ("F1 of dog is 0.500",)),
    "category never shown": ({"min_f1": {"horse": 0.1}}, ("no F1 of horse",)),
    "unreadable allowed": ({"max_unreadable": 0.05}, None),
    "too many unreadable": (
        {"max_unreadable": 0.04},
        ("5 of 100 answers are missing (unreadable or failed images), more than 4.00%",),
    ),
    "truncated allowed": ({"max_truncated": 0.05}, None),
    "too many truncated": ({"max_truncated": 0.01}, ("4 of 95 answers were cut",)),
    "two at once": ({"min_f1": 0.9, "max_truncated": 0}, ("F1 is 0.667", "; 4 of 95")),
}


@pytest.mark.parametrize("case", GATES)
def test_gates(case: str) -> None:
    gates, reasons = GATES[case]
    verdict = judge(checks(HALF, TRUE), COUNTS, GateSettings.model_validate(gates))
    assert verdict.state == ("promoted" if reasons is None else "held")
    for words in reasons or ("F1 is 0.667 on 2 golden images (95 % interval",):
        assert words in verdict.why
    assert "\n" not in verdict.why


def test_without_golden_images_a_run_is_promoted_unchecked() -> None:
    nothing = schema("checks").empty_table()
    verdict = judge(nothing, COUNTS, GateSettings())
    assert (verdict.state, verdict.why, verdict.scores) == ("promoted", UNCHECKED, None)
    assert judge(nothing, COUNTS, GateSettings(max_truncated=0.01)).state == "held"
    assert judge(nothing, COUNTS, GateSettings(min_f1={"overall": 0.1})).state == "held"


def test_golden_images_nobody_could_read_pass_no_gate() -> None:
    lost = {"status": "failed", "error": "storage is down", "token_ids": None}
    rows = checks({"a": [("dog", BOX)], "b": []}, {key: [("dog", BOX)] for key in "ab"}, rows={"b": lost})
    assert judge(rows, COUNTS, GateSettings(min_f1={"overall": 0.5})).why == "only 1 of 2 golden images could be judged"
    assert judge(rows, COUNTS, GateSettings()).state == "promoted"


@pytest.mark.parametrize("gates", [{"min_f1": 1.5}, {"min_f1": {"dog": -1}}, {"max_truncated": "x"}, {"min_map": 1}])
def test_gates_that_mean_nothing(gates: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GateSettings.model_validate(gates)


def test_gates_survive_the_plan() -> None:
    gates = GateSettings.model_validate({"min_f1": 0.8, "max_truncated": 0.1})
    assert GateSettings.model_validate_json(gates.model_dump_json()) == gates


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.open(f"memory://{secrets.token_hex(8)}", None)


def stage(
    ledger: Ledger, golden: pa.Table | None = None, numbers: Sequence[int] = range(3), gates: Mapping[str, Any] = {}, fingerprint: str = FINGERPRINT
) -> Plan:  # fmt: skip
    """A run that is staged and not judged, its golden images in its first shard."""
    job = json.dumps({"gates": gates})
    plan, _ = ledger.create_plan(
        fingerprint, shards_of(records(*numbers)), job=job, facts={}, complete_listing=True
    )  # fmt: skip
    assert plan
    for index in ledger.shards_left(plan):
        shard = ledger.read_shard(plan, index)
        tables = tables_of(shard)
        if golden is not None and index == 0:
            tables["checks"] = golden
        count = len(shard.images)
        ledger.commit_shard(shard, "attempt", tables, {"images": count, "ok": count})
    ledger.stage_run(plan, who="test", why="all shards are marked")
    return plan


def test_a_run_that_passes_is_promoted_with_its_scores(ledger: Ledger) -> None:
    golden = checks(HALF, TRUE)
    plan = stage(ledger, golden)
    judge_staged_runs(ledger, FINGERPRINT, GateSettings(min_f1={"overall": 0.5}))
    assert ledger.state_of(plan.run_id) == "promoted"
    scores = judge(golden, {}, GateSettings()).scores
    assert scores is not None
    assert scores_of(Ledger(ledger.store, ledger.url, None).states(), plan.run_id) == scores
    assert asdict(scores)["images"] == 2
    assert read_checks(ledger, plan.run_id).sort_by("image_key").equals(golden)


def test_golden_images_are_nobodys_labels(ledger: Ledger) -> None:
    plan = stage(ledger, checks(HALF, TRUE))
    judge_staged_runs(ledger, FINGERPRINT, GateSettings())
    keys = [record.key for record in records(*range(3))]
    seen = [key for images, shapes in current_view(ledger).batches() for key in images["image_key"].to_pylist()]
    assert seen == keys == [key for key, *_ in labelled_keys(ledger, FINGERPRINT)]
    assert run_counts(ledger, plan.run_id)["images"] == 3


def test_a_run_that_fails_is_held_and_counts_as_labelled(ledger: Ledger) -> None:
    plan = stage(ledger, checks(HALF, TRUE))
    judge_staged_runs(ledger, FINGERPRINT, GateSettings(min_f1={"overall": 0.9}))
    (held,) = held_runs(ledger, FINGERPRINT)
    assert (held.run_id, held.state) == (plan.run_id, "held")
    assert "less than 0.9" in held.why
    assert held_runs(ledger, "another") == []
    assert not current_view(ledger).runs
    assert len(list(labelled_keys(ledger, FINGERPRINT))) == 3
    judge_staged_runs(ledger, FINGERPRINT, GateSettings())  # a held run is somebody's to decide, not the next run's
    assert ledger.state_of(plan.run_id) == "held"


def test_a_discarded_run_is_planned_again(ledger: Ledger) -> None:
    plan = stage(ledger, checks(HALF, TRUE))
    judge_staged_runs(ledger, FINGERPRINT, GateSettings(min_f1={"overall": 0.9}))
    ledger.append_state(plan.run_id, "discarded", "test", "wrong")
    assert held_runs(ledger, FINGERPRINT) == []
    assert list(labelled_keys(ledger, FINGERPRINT)) == []
    again, created = create_plan(ledger, records(*range(3)))
    assert created and again
    assert again.number == 2


def test_another_questions_staged_run_is_judged_by_its_own_gates(ledger: Ledger) -> None:
    plan = stage(ledger, checks(HALF, TRUE), gates={"min_f1": {"overall": 0.9}}, fingerprint="other")
    judge_staged_runs(ledger, FINGERPRINT, GateSettings())
    assert ledger.state_of(plan.run_id) == "held"


def test_judging_again_takes_the_present_golden_set_and_gates() -> None:
    rows = checks(HALF, TRUE)
    strict = GateSettings(min_f1={"overall": 0.9})
    assert judge_again(rows, known(TRUE), COUNTS, strict).state == "held"
    assert judge_again(rows, known(TRUE), COUNTS, GateSettings(min_f1={"overall": 0.5})).state == "promoted"
    renamed = {("s3://golden/corrected.json", key): answer for (_, key), answer in known(HALF).items()}
    verdict = judge_again(rows, renamed, COUNTS, strict)
    assert verdict.state == "promoted"
    assert verdict.scores and verdict.scores.micro.f1[0] == 1.0
    fewer = judge_again(rows, {(SOURCE, "a"): known(TRUE)[SOURCE, "a"]}, COUNTS, strict).scores
    assert fewer and fewer.images == 1
