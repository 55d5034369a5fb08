"""The spot check of a run: its golden images' answers against the job's gates decide whether it is promoted or held. Leaves matching and F1 to model/checks.py."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from model.annotations import FAILED, MALFORMED, OK, TRUNCATED, UNREADABLE, schema
from model.checks import CategoryScore, GoldenKey, KnownAnswer, Scores, match_again, score_checks
from sinks.dataset.ledger import Ledger
from sinks.dataset.parquet import read_rows
from sinks.dataset.records import Plan, RunState
from sinks.dataset.states import HELD, PROMOTED, STAGED, StateError, user_name

OVERALL = "overall"
UNCHECKED = "promoted unchecked: the job names no golden set, so nobody knows how good these labels are"

Share = Annotated[float, Field(ge=0, le=1)]


class GateSettings(BaseModel):
    """What a run's labels must be worth to be promoted without anybody's look; a run that is not is held."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_f1: dict[str, Share] = Field(
        {},
        description="least F1 on the golden images, at IoU 0.5 (points: in the box): a number for all shapes together, or one for overall and for categories by name",
    )
    max_unreadable: Share | None = Field(
        None, description="largest share of images left without an answer (unreadable or failed)"
    )
    max_truncated: Share | None = Field(None, description="largest share of answers cut by sampling.max_tokens")

    @field_validator("min_f1", mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {OVERALL: value} if isinstance(value, int | float) else value

    @property
    def gated_categories(self) -> tuple[str, ...]:
        return tuple(name for name in self.min_f1 if name != OVERALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """state: promoted or held; why: the reason in one sentence. scores None: no golden image was labelled with the run."""

    state: str
    why: str
    scores: Scores | None


def read_checks(ledger: Ledger, run_id: str) -> pa.Table:
    """The table checks of a finished run, whatever its state; without rows where it had no golden images. Raises UnknownRunError, DamagedFileError."""
    files = [file for file in ledger.files(run_id) if file.table == "checks"]
    parts = [rows for file in files for rows in read_rows(ledger.store, file, None)]
    return pa.concat_tables([schema("checks").empty_table(), *parts])


def judge(checks: pa.Table, counts: Mapping[str, int], gates: GateSettings) -> Verdict:
    """checks: the run's golden images, matched; counts: the run's (sinks/dataset/records.Marker)."""
    scores = score_checks(checks) if checks.num_rows else None
    fails = [*_f1_fails(scores, gates), *_count_fails(counts, gates)]
    if fails:
        return Verdict(HELD, "; ".join(fails), scores)
    return Verdict(PROMOTED, UNCHECKED if scores is None else _praise(scores), scores)


def judge_staged_runs(ledger: Ledger, fingerprint: str, gates: GateSettings) -> None:
    """Promotes or holds every run that is staged and not judged: the one just finished, and those of a program that ended between the two states.

    gates: for runs of this fingerprint; another question's runs are judged by the gates of the job they were planned with.
    """
    latest = {state.run_id: state.state for state in ledger.states()}
    for plan in ledger.plans():
        if latest.get(plan.run_id) != STAGED:
            continue
        own = gates if plan.fingerprint == fingerprint else planned_gates(plan)
        verdict = judge(read_checks(ledger, plan.run_id), run_counts(ledger, plan.run_id), own)
        details = {} if verdict.scores is None else {"scores": asdict(verdict.scores)}
        try:
            ledger.append_state(plan.run_id, verdict.state, user_name(), verdict.why, details)
        except StateError:
            if ledger.state_of(plan.run_id) == STAGED:  # else somebody else has judged it meanwhile, and that stands
                raise


def judge_again(
    checks: pa.Table, known: Mapping[GoldenKey, KnownAnswer], counts: Mapping[str, int], gates: GateSettings
) -> Verdict:
    """What would be decided now, from stored answers: known is the present golden sets', in which an image is found under its key whatever the file is called.

    Answers about images that are in no golden set any more are left out.
    """
    by_key = {key: answer for (_, key), answer in known.items()}
    places = zip(checks["source"].to_pylist(), checks["image_key"].to_pylist())
    present = {(source, key): known.get((source, key), by_key[key]) for source, key in places if key in by_key}
    return judge(match_again(checks, present), counts, gates)


def planned_gates(plan: Plan) -> GateSettings:
    """The gates of the job that the plan was made with."""
    return GateSettings.model_validate(json.loads(plan.job).get("gates", {}))


def run_counts(ledger: Ledger, run_id: str) -> dict[str, int]:
    """The counts of a finished run; empty for another."""
    staged = (state for state in ledger.states() if state.run_id == run_id and state.state == STAGED)
    counts: Any = next((state.details["counts"] for state in staged), {})
    return dict(counts)


def scores_of(states: Sequence[RunState], run_id: str) -> Scores | None:
    """The scores that a run was judged by; None: it was not, or had no golden image. states: the output's log."""
    found = (state.details["scores"] for state in states if state.run_id == run_id and "scores" in state.details)
    scores = next(found, None)
    return None if scores is None else _SCORES.validate_python(scores)


def held_runs(ledger: Ledger, fingerprint: str) -> list[RunState]:
    """The runs of this question that wait for somebody's decision, oldest first: each one's record of being held."""
    latest = {state.run_id: state for state in ledger.states()}
    return [
        latest[plan.run_id]
        for plan in ledger.plans()
        if plan.fingerprint == fingerprint and plan.run_id in latest and latest[plan.run_id].state == HELD
    ]


_SCORES: TypeAdapter[Scores] = TypeAdapter(Scores)


def _f1_fails(scores: Scores | None, gates: GateSettings) -> list[str]:
    if not gates.min_f1:
        return []
    if scores is None:
        return ["gates.min_f1 is set, but no golden image was labelled with this run"]
    if scores.images <= scores.unjudged:
        return [f"only {scores.images} of {scores.images + scores.unjudged} golden images could be judged"]
    categories = {category.name: category for category in scores.categories}
    fails = []
    for name, least in gates.min_f1.items():
        overall = name == OVERALL and name not in categories
        f1 = scores.micro.f1[0] if overall else _category_f1(categories.get(name))
        of = "" if overall else f" of {name}"
        if f1 is None:
            fails.append(f"no F1{of} can be had: the golden images show none of it")
        elif f1 < least:
            fails.append(f"F1{of} is {f1:.3f} on {scores.images} golden images, less than {least:g}")
    return fails


def _category_f1(category: CategoryScore | None) -> float | None:
    return category.f1 if category and category.truths else None


def _count_fails(counts: Mapping[str, int], gates: GateSettings) -> list[str]:
    answered = sum(counts.get(status, 0) for status in (OK, TRUNCATED, MALFORMED))
    lost = counts.get(UNREADABLE, 0) + counts.get(FAILED, 0)
    truncated = counts.get(TRUNCATED, 0)
    fails = []
    if gates.max_unreadable is not None and lost > gates.max_unreadable * (lost + answered):
        fails.append(
            f"{lost:,} of {lost + answered:,} answers are missing (unreadable or failed images), more than {gates.max_unreadable:.2%} of them"
        )
    if gates.max_truncated is not None and truncated > gates.max_truncated * answered:
        fails.append(f"{truncated:,} of {answered:,} answers were cut, more than {gates.max_truncated:.2%} of them")
    return fails


def _praise(scores: Scores) -> str:
    f1, interval = scores.micro.f1[0], scores.micro.intervals[0]
    if f1 is None or interval is None:
        return f"checked with {scores.images} golden images, but there was nothing on them to score"
    return f"F1 is {f1:.3f} on {scores.images} golden images (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
