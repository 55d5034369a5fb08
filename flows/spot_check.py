"""What a person does about a run that was held: judge it again, promote it, discard it. Loads no engine."""

from flows.job import LabelJob
from flows.publish import publish
from sinks.dataset.ledger import Ledger
from sinks.dataset.states import DISCARDED, HELD, PROMOTED, user_name
from tasks.checking import judge_again, read_checks, run_counts, scores_of
from tasks.golden import read_golden_sets
from tasks.reporting import CheckReport, RunReport


class NothingToCheckError(ValueError):
    """There is no run, no golden set or no golden image's answer to judge; the message says which."""


def promote_run(job: LabelJob, run_id: str, *, who: str | None, why: str) -> RunReport:
    """Makes a held run count, and pushes what readers see now to the job's sinks. Raises UnknownRunError, StateError.

    A run that is promoted already stays as it is; the sinks are pushed all the same.
    """
    ledger = Ledger.open(job.output, job.credentials.output)
    state = ledger.append_state(run_id, PROMOTED, who or user_name(), why)
    sentence = f"run {run_id} was promoted by {state.who}: {state.why}"
    counts, scores = run_counts(ledger, run_id), scores_of(ledger.states(), run_id)
    return RunReport("done", sentence, job.output, run_id, counts=counts, scores=scores, pushes=publish(job))


def discard_run(job: LabelJob, run_id: str, *, who: str | None, why: str) -> RunReport:
    """Gives a held or unfinished run up: readers never see it, the next run labels its images again. Raises UnknownRunError, StateError."""
    ledger = Ledger.open(job.output, job.credentials.output)
    state = ledger.append_state(run_id, DISCARDED, who or user_name(), why)
    sentence = f"run {run_id} was discarded by {state.who}: {state.why}. The next run labels its images again"
    return RunReport("done", sentence, job.output, run_id)


def check_run(job: LabelJob, run_id: str | None) -> CheckReport:
    """Judges a finished run by the job's present golden sets and gates, from its stored answers; changes nothing. run_id None: the newest held run, or else the newest.

    Raises NothingToCheckError, GoldenSetError, UnknownRunError.
    """
    if not job.golden:
        raise NothingToCheckError("golden: the job names no golden set to check with")
    ledger = Ledger.open(job.output, job.credentials.output)
    run_id = run_id or _newest_run(ledger)
    checks = read_checks(ledger, run_id)
    if not checks.num_rows:
        raise NothingToCheckError(
            f"run {run_id} has no golden images: it was labelled before the job named a golden set. The next run will have them"
        )
    golden = read_golden_sets(job.golden, job.taxonomy, job.credentials.source)
    verdict = judge_again(checks, golden.known, run_counts(ledger, run_id), job.gates)
    if verdict.scores is None:
        raise NothingToCheckError(
            f"none of the {checks.num_rows:,} golden images labelled with run {run_id} is in the job's present golden sets"
        )
    unanswered = len({key for _, key in golden.known} - set(checks["image_key"].to_pylist()))
    return CheckReport(job.output, run_id, ledger.state_of(run_id), verdict, unanswered, golden.unmapped)


def _newest_run(ledger: Ledger) -> str:
    latest = {state.run_id: state.state for state in ledger.states()}
    finished = [plan.run_id for plan in ledger.plans() if latest.get(plan.run_id) in (HELD, PROMOTED)]
    held = [run_id for run_id in finished if latest[run_id] == HELD]
    if not finished:
        raise NothingToCheckError(f"{ledger.url} holds no finished run yet; `prelabel run` makes one")
    return (held or finished)[-1]
