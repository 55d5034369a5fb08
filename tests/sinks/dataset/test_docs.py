"""What docs/dataset.md tells readers to type, typed."""

from pathlib import Path

import duckdb

from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import current_view
from tests.sinks.dataset.outputs import records, whole_run

DOCS = Path(__file__).parents[3] / "docs" / "dataset.md"


def test_the_sql_gives_the_current_view(tmp_path: Path) -> None:
    ledger = Ledger.open(f"file://{tmp_path}/labels", None)
    whole_run(ledger, records(*range(10)), size=3, status={"0003.jpg": "failed"}, prompts=2)
    whole_run(ledger, [*records(3, 5, etag="2"), *records(20)], phrase="cat")
    whole_run(ledger, records(7), fingerprint="f2", status={"0007.jpg": "failed"})
    whole_run(ledger, records(5), fingerprint="f2", status={"0005.jpg": "failed"})
    whole_run(ledger, records(8), fingerprint="f3", state="held")
    whole_run(ledger, records(8), fingerprint="f4", task="pointing")
    sql = DOCS.read_text().partition("```sql\n")[2].partition("```")[0]
    database = duckdb.connect()
    database.execute(sql.replace("'labels'", f"'{tmp_path}/labels'", 1))
    view = current_view(ledger)
    for table, frame in (("images", view.images()), ("annotations", view.annotations())):
        columns = "image_key, task, prompt_index, run_id, etag"
        expected = frame.select(columns.split(", ")).collect().rows()
        assert sorted(database.sql(f"SELECT {columns} FROM {table}").fetchall()) == sorted(expected)
        assert expected
