"""Several runs' sorted rows side by side, in windows of whole images. Memory holds a few shards' files, or batches of larger files, for each run.

Which rows win is the caller's business.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
from obstore.store import ObjectStore

from sinks.dataset.parquet import WHOLE_FILE_BYTES, read_rows
from sinks.dataset.records import FileEntry

READERS = 8  # files being read at once, over all runs
_FILES_AHEAD = 16  # over all runs, but one a run


class SortedRows:
    """One table of one run, taken from its start in key order. A key's rows may be spread over batches of a file, never over files.

    Nothing is read before it is needed: of a long history most runs lie elsewhere.
    """

    def __init__(
        self,
        store: ObjectStore,
        files: Sequence[FileEntry],
        columns: Sequence[str] | None,
        pool: ThreadPoolExecutor,
        runs: int,
    ) -> None:
        """files: in key order. columns: what to read, image_key included; None: all. runs: how many are read beside this one."""
        self._store, self._columns, self._pool = store, columns, pool
        self._ahead = max(1, _FILES_AHEAD // runs)
        self._files = deque(file for file in files if file.rows)
        self._reading: deque[Future[list[pa.Table]]] = deque()  # of the first files in _files
        self._batches: Iterator[pa.Table] = iter(())
        self._rest = 0  # rows of the open file that are not yet read
        self._buffer: pa.Table | None = None

    @property
    def head(self) -> str | None:
        """The smallest key not yet taken; None at the end."""
        if self._buffer is None and self._rest:
            self._read_batch()
        if self._buffer is not None:
            return str(self._buffer["image_key"][0].as_py())
        return self._files[0].first_key if self._files else None

    def whole_up_to(self) -> str:
        """A key, not below head, up to which all rows are at hand; reads as far as needed. Not to be called at the end."""
        while True:
            keys = self._filled()["image_key"]
            last = keys[-1].as_py()
            if not self._rest:
                return str(last)
            before = pc.index(keys, last).as_py()
            if before:
                return str(keys[before - 1].as_py())
            self._read_batch()

    def take(self, up_to: str) -> pa.Table | None:
        """All rows with keys to up_to, which are then gone from here; None: there are none."""
        taken = []
        while (head := self.head) is not None and head <= up_to:
            rows = self._filled()
            count = pc.sum(pc.less_equal(rows["image_key"], up_to)).as_py()
            taken.append(rows.slice(0, count))
            self._buffer = rows.slice(count) if count < rows.num_rows else None
        return pa.concat_tables(taken) if taken else None

    def _filled(self) -> pa.Table:
        if self._buffer is None:
            if not self._rest:
                self._open_file()
            self._read_batch()
        return self._buffer

    def _open_file(self) -> None:
        file = self._files.popleft()
        if self._reading:
            self._batches = iter(self._reading.popleft().result())
        else:
            self._batches = read_rows(self._store, file, self._columns)
        self._rest = file.rows
        for following in islice(self._files, len(self._reading), self._ahead):
            if following.size_bytes > WHOLE_FILE_BYTES:
                break  # read in batches when its turn comes
            self._reading.append(self._pool.submit(self._read_whole, following))

    def _read_whole(self, file: FileEntry) -> list[pa.Table]:
        return list(read_rows(self._store, file, self._columns))

    def _read_batch(self) -> None:
        batch = next(self._batches)
        self._rest -= batch.num_rows
        self._buffer = batch if self._buffer is None else pa.concat_tables([self._buffer, batch])


def windows(runs: Sequence[SortedRows]) -> Iterator[tuple[str, dict[int, pa.Table]]]:
    """Consecutive ranges of keys, each by its last key, with the rows of every run that has some there, by the run's position in runs.

    Ranges cover all rows once and hold whole images: a key's rows of all runs are in one window.
    """
    while True:
        heads = sorted((head, position) for position, run in enumerate(runs) if (head := run.head) is not None)
        if not heads:
            return
        up_to = runs[heads[0][1]].whole_up_to()
        for head, position in heads[1:]:
            if head > up_to:
                break
            up_to = min(up_to, runs[position].whole_up_to())
        found = {position: run.take(up_to) for position, run in enumerate(runs)}
        yield up_to, {position: rows for position, rows in found.items() if rows is not None}
