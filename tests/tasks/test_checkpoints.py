"""Where a model's files are found: beside the job, in the hub's cache, or nowhere with a word of advice."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from tasks.checkpoints import CheckpointUnavailable, ModelSettings, fetch_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's, and no network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def cached(cache: Path, name: str, *, branch: str = "main") -> Path:
    """A snapshot of name as the hub's client leaves it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / branch).write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("form", ["{relative}", "./{relative}", "{absolute}", "file://{absolute}"])
def test_a_folder_is_found_beside_the_job(tmp_path: Path, form: str) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    name = form.format(relative="models/tiny", absolute=tmp_path / "models" / "tiny")
    files = fetch_checkpoint(ModelSettings(name=name).located(tmp_path))
    assert (files.folder, files.name, files.revision) == (tmp_path / "models" / "tiny", "tiny", None)


def test_a_name_with_a_slash_that_is_no_folder_stays_a_hub_name(tmp_path: Path) -> None:
    assert ModelSettings(name="owner/name").located(tmp_path).name == "owner/name"


@pytest.mark.parametrize(
    "name",
    ["checkpoint", "./models/tiny", "/models/tiny", "../tiny", "a/b/c", "a b/c", "a/b--c", "file:///models/tiny"],
)
def test_what_is_neither_a_folder_nor_a_hub_name_is_said(tmp_path: Path, hub_cache: Path, name: str) -> None:
    with pytest.raises(CheckpointUnavailable, match=r"^model\.name: there is no folder .*owner/name"):
        fetch_checkpoint(ModelSettings(name=name).located(tmp_path))


def test_a_hub_name_is_resolved_to_its_commit(hub_cache: Path) -> None:
    snapshot = cached(hub_cache, "somebody/rex")
    files = fetch_checkpoint(ModelSettings(name="somebody/rex"))
    assert (files.folder, files.name, files.revision, files.licence) == (snapshot, "somebody/rex", COMMIT, None)


def test_a_branch_is_resolved_too(hub_cache: Path) -> None:
    cached(hub_cache, "somebody/rex", branch="tuned")
    assert fetch_checkpoint(ModelSettings(name="somebody/rex", revision="tuned")).revision == COMMIT
    with pytest.raises(CheckpointUnavailable):
        fetch_checkpoint(ModelSettings(name="somebody/rex"))


def test_rex_omni_comes_with_its_licence(hub_cache: Path) -> None:
    cached(hub_cache, "IDEA-Research/Rex-Omni")
    licence = fetch_checkpoint(ModelSettings(name="IDEA-Research/Rex-Omni")).licence
    assert licence is not None
    assert "non-commercial" in licence


def test_what_cannot_be_had_comes_with_the_command_that_fetches_it(hub_cache: Path) -> None:
    with pytest.raises(CheckpointUnavailable, match=r"^model\.name: .*`hf download IDEA-Research/Rex-Omni`"):
        fetch_checkpoint(ModelSettings(name="IDEA-Research/Rex-Omni"))
