"""The command `prelabel`: reads its arguments, starts the flow they name and turns its outcome into an exit code. Imports flows and tasks only when a command runs, so that --help answers at once."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec

import click

if TYPE_CHECKING:
    from flows.job import LabelJob
    from tasks.reporting import RunReport

DONE, FAULT, BAD_JOB, HELD, PARTIAL = 0, 1, 2, 3, 4

_EXIT_CODES = """\b
Exit codes:
  0  done, or nothing to do     1  fault (storage, engine, …)
  2  the job cannot be run      3  held back by the spot check
  4  partial: run it again to go on"""

# A command-line run shows its own progress and summary; Prefect's log lines go to its UI. Neither Prefect nor vLLM calls home.
_QUIET = {
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # its first start migrates a database: over Prefect's own 20 s on a busy machine
    "DO_NOT_TRACK": "1",
}

P = ParamSpec("P")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: prelabel plan examples/shapes/job.yaml",
)
@click.version_option(package_name="prelabel")
def main() -> None:
    """Pre-label image archives in bulk: boxes, points, polygons, key points and read text.

    A job file says where the images are, what to look for and where the labels go. A run lists the images, labels those that are new or changed, and pushes what passes to COCO and the gallery.
    It can be stopped at any moment and run again: nothing is lost and nothing is done twice.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    _make_prefect_home()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, until there is something to drain


def _make_prefect_home() -> None:
    """Prefect's embedded server makes no parent folders, and where it cannot start it is waited for until the time is up, without a reason."""
    folder = Path(os.environ.get("PREFECT_HOME") or Path(os.environ.get("HOME", "/")) / ".prefect").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        click.echo(
            f"Prefect keeps its history in {folder}, which cannot be made ({error.strerror}): set PREFECT_HOME to a folder that can be written to",
            err=True,
        )
        sys.exit(BAD_JOB)


def _command(function: Callable[P, int]) -> Callable[P, NoReturn]:
    """Turns a command's outcome, or what it raises, into an exit code a scheduler can trust."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        try:
            code = function(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("stopped; run the same command again to go on", err=True)
            code = PARTIAL
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - Prefect's TerminationSignal is no Exception; whatever it is, a scheduler needs a code and a person a sentence
            from flows.failures import explain_failure

            code, message = explain_failure(error)
            click.echo(message, err=True)
        sys.exit(code)

    return run


_job_argument = click.argument("job_file", metavar="JOB", type=click.Path(path_type=Path))


def _load(job_file: Path) -> "LabelJob":
    from flows.job import load_job

    return load_job(job_file)


def _exit_code(reports: "Sequence[RunReport]") -> int:
    codes = {"done": DONE, "nothing": DONE, "held": HELD, "partial": PARTIAL}
    if any(push.error for report in reports for push in report.pushes):
        return FAULT  # before held and partial: those wait for somebody, this is broken
    return max(codes[report.outcome] for report in reports)


@main.command(epilog=_EXIT_CODES)
@_job_argument
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="A pilot: label at most N images, then stop.")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Also try images again that could not be read. (What failed for storage or engine reasons is always tried again.)",
)
@_command
def run(job_file: Path, limit: int | None, retry_failed: bool) -> int:
    """Label what is new or changed, then push it to the job's sinks.

    JOB is a YAML file; `prelabel plan JOB` says beforehand what a run would do. An unfinished run of the same job is taken up and finished first.
    A run that does not pass the job's gates on its golden images is held: its labels count as done, but nobody sees them until `prelabel promote`.
    Ctrl-C or SIGTERM finishes what is in the engine, commits whole shards and ends as partial; a second one stops at once. Neither loses what was committed.
    """
    job = _load(job_file)
    from flows.label import prelabel
    from tasks.reporting import print_summary

    reports = prelabel(job, limit=limit, retry_failed=retry_failed)
    for report in reports:
        print_summary(report)
    return _exit_code(reports)


@main.command(epilog=_EXIT_CODES)
@_job_argument
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="As for run: at most N images.")
@click.option("--retry-failed", is_flag=True, help="As for run.")
@_command
def plan(job_file: Path, limit: int | None, retry_failed: bool) -> int:
    """Say what a run would do: list and compare, but label and write nothing."""
    job = _load(job_file)
    from flows.preview import preview_run
    from tasks.reporting import print_preview

    print_preview(preview_run(job, limit=limit, retry_failed=retry_failed))
    return DONE


@main.command(epilog=_EXIT_CODES)
@_job_argument
@_command
def status(job_file: Path) -> int:
    """List the output's runs, how far each is and what waits."""
    job = _load(job_file)
    from flows.preview import run_statuses
    from tasks.reporting import print_statuses

    print_statuses(job.output, run_statuses(job))
    return DONE


@main.command(epilog=_EXIT_CODES)
@_job_argument
@click.option(
    "--run", "run_id", metavar="RUN", help="Show this run alone instead of the current view of all promoted runs."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("prelabel-report.html"),
    show_default=True,
    help="The page to write.",
)
@_command
def report(job_file: Path, run_id: str | None, out: Path) -> int:
    """Write the gallery, one self-contained HTML page, from what is labelled."""
    job = _load(job_file)
    from flows.publish import write_report

    write_report(job, run_id, out)
    click.echo(f"written to {out}")
    return DONE


_run_argument = click.argument("run_id", metavar="RUN")
_why_option = click.option("--why", required=True, metavar="TEXT", help="The reason; it is recorded with the run.")
_who_option = click.option("--who", metavar="NAME", help="Who decides.  [default: your user name]")


@main.command(epilog=_EXIT_CODES)
@_job_argument
@_run_argument
@_why_option
@_who_option
@_command
def promote(job_file: Path, run_id: str, why: str, who: str | None) -> int:
    """Let a held run's labels count after all, and push them to the job's sinks."""
    job = _load(job_file)
    from flows.spot_check import promote_run
    from tasks.reporting import print_summary

    report = promote_run(job, run_id, who=who, why=why)
    print_summary(report)
    return _exit_code([report])


@main.command(epilog=_EXIT_CODES)
@_job_argument
@_run_argument
@_why_option
@_who_option
@_command
def discard(job_file: Path, run_id: str, why: str, who: str | None) -> int:
    """Give a held or unfinished run up: nobody sees its labels, the next run makes them anew."""
    job = _load(job_file)
    from flows.spot_check import discard_run
    from tasks.reporting import print_summary

    print_summary(discard_run(job, run_id, who=who, why=why))
    return DONE


@main.command(epilog=_EXIT_CODES)
@_job_argument
@click.option("--run", "run_id", metavar="RUN", help="Which run; by default the newest held one, or else the newest.")
@_command
def check(job_file: Path, run_id: str | None) -> int:
    """Judge a run again, without the engine.

    Its stored answers about golden images are held against the job's present golden sets and gates. Says what would be decided and changes nothing; exits 3 if the run would be held.
    """
    job = _load(job_file)
    from flows.spot_check import check_run
    from tasks.reporting import print_check

    report = check_run(job, run_id)
    print_check(report)
    return DONE if report.passes else HELD
