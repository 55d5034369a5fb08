"""Where everything lies in an output: the path of each object, as pure functions. Reads and writes nothing.

    output/
    ├── output.json                                   the layout's version, created first
    ├── log/00000001.json                             states of runs, one numbered record each: their order is the order of the output
    ├── plans/<fingerprint>/0001.json                 plan slots: the record decides which plan is this fingerprint's n-th
    ├── parts/<fingerprint>/0001/<run id>/            shard lists written by one would-be creator of that plan, before the slot
    │   └── part-00000.parquet                        1,000 shards, a row group each
    ├── runs/<run id>/
    │   ├── shards/000042/<attempt>/                  one attempt at a shard, before its marker
    │   │   ├── images-<hash>.parquet
    │   │   ├── annotations-<hash>.parquet
    │   │   └── checks-<hash>.parquet                 where golden images went with the shard
    │   ├── markers/000042.json                       the end of the shard: names the winning attempt's files, or says abandoned
    │   ├── manifest-<hash>.parquet                   all files of the run, named by its `staged` record
    │   └── claims/000042/0007.json                   kept free for leases: a takeover creates the next generation
    ├── pushes/<sink>-<hash of its url>.json          what a sink was last given
    └── snapshots/0001/…                              kept free for compaction: large files and the manifest that replaces runs' manifests

Whatever is not named by a slot, a marker or a state record does not exist for readers.
"""

LAYOUT_VERSION = 1
SHARDS_PER_PART = 1000

OUTPUT = "output.json"
LOG = "log"
PLANS = "plans"
PARTS = "parts"


def log_path(order: int) -> str:
    return f"{LOG}/{order:08d}.json"


def slots_folder(fingerprint: str) -> str:
    return f"{PLANS}/{fingerprint}"


def slot_path(fingerprint: str, number: int) -> str:
    return f"{PLANS}/{fingerprint}/{number:04d}.json"


def parts_folder(fingerprint: str, number: int, run_id: str) -> str:
    return f"{PARTS}/{fingerprint}/{number:04d}/{run_id}"


def part_path(folder: str, part: int) -> str:
    """folder: a plan's, from parts_folder."""
    return f"{folder}/part-{part:05d}.parquet"


def shard_name(run_id: str, index: int) -> str:
    return f"{run_id}-{index:06d}"


def attempts_folder(run_id: str) -> str:
    return f"runs/{run_id}/shards"


def file_path(run_id: str, index: int, attempt: str, table: str, digest: str) -> str:
    """digest: of the contents, so that an attempt made twice never replaces a file that a marker may name."""
    return f"runs/{run_id}/shards/{index:06d}/{attempt}/{table}-{digest[:8]}.parquet"


def markers_folder(run_id: str) -> str:
    return f"runs/{run_id}/markers"


def marker_path(run_id: str, index: int) -> str:
    return f"runs/{run_id}/markers/{index:06d}.json"


def manifest_path(run_id: str, digest: str) -> str:
    return f"runs/{run_id}/manifest-{digest[:16]}.parquet"


def number_in(path: str) -> int:
    """The number a record's path ends with: of a log record, a slot or a marker."""
    return int(path.rpartition("/")[2].removesuffix(".json"))


def push_path(sink: str, digest: str) -> str:
    return f"pushes/{sink}-{digest}.json"
