"""The model's files on this machine: a folder as given, or a snapshot from the Hugging Face hub. What is in them is model/checkpoint.py's business."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

LICENCES = {
    "IDEA-Research/": (
        "Rex-Omni's weights are under the IDEA License 1.0 over the Qwen Research License: non-commercial use only. "
        "https://huggingface.co/IDEA-Research/Rex-Omni"
    ),
}


class CheckpointUnavailable(RuntimeError):
    """The model's files cannot be had; the message says what to do."""


class ModelSettings(BaseModel):
    """Which checkpoint. A name with a slash that is no folder beside the job file is looked up on the Hugging Face hub."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="a folder, or a hub name such as IDEA-Research/Rex-Omni")
    revision: str | None = Field(
        None, description="hub branch, tag or commit; resolved to a commit and recorded. null: main"
    )
    max_pixels: int | None = Field(
        None,
        ge=28 * 28,
        description="largest picture shown to the model, in pixels; fewer are faster. null: what the checkpoint allows",
    )

    def located(self, folder: Path) -> Self:
        """The same settings, the name made an absolute path where it is a folder (beside the job file)."""
        path = folder / Path(self.name.removeprefix("file://")).expanduser()
        return self.model_copy(update={"name": str(path.resolve())}) if path.is_dir() else self


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """A checkpoint's folder here. revision: the hub's commit, or None for a plain folder (its contents are hashed instead)."""

    folder: Path
    name: str
    revision: str | None
    licence: str | None


def fetch_checkpoint(settings: ModelSettings) -> LocalCheckpoint:
    """The checkpoint's folder, downloaded once into the hub's cache where it has to be. Raises CheckpointUnavailable."""
    folder = Path(settings.name)
    if folder.is_dir():
        return LocalCheckpoint(folder, folder.name, None, None)
    neither = f"model.name: there is no folder {settings.name}, and it is not a hub name of the form owner/name either"
    if folder.is_absolute() or settings.name.count("/") != 1 or settings.name.startswith("."):
        raise CheckpointUnavailable(neither)
    from huggingface_hub import snapshot_download  # late: heavy, and needless for a folder
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            settings.name, revision=settings.revision, ignore_patterns=["*.pth", "*.bin", "*.gguf"]
        )
    except HFValidationError as error:
        raise CheckpointUnavailable(f"{neither}: {error}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointUnavailable(
            f"model.name: {settings.name} is neither in the local hub cache nor to be had from the hub ({type(error).__name__}: {error}). "
            f"Fetch it beforehand with `hf download {settings.name}`, or give the path of a folder that holds it."
        ) from error
    licence = next((text for owner, text in LICENCES.items() if settings.name.startswith(owner)), None)
    return LocalCheckpoint(Path(snapshot), settings.name, Path(snapshot).name, licence)
