"""Pictures of pages by headless Chromium, where one is installed. Knows nothing of what the pages show."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # a test's browser calls nobody
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """The browser's path: $CHROMIUM, else the first of the usual names on PATH; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


def screenshot(page: Path | str, picture: Path, *, width_px: int, height_px: int, seconds: float = 60) -> None:
    """Writes a PNG of a window onto page (a file or a URL). RuntimeError where there is no browser or it writes nothing.

    Chromium's windows are at least 500 px wide: a narrower picture is a cut, not a narrow layout.
    """
    browser = find_chromium()
    if browser is None:
        raise RuntimeError("Chromium is not installed")
    url = page.resolve().as_uri() if isinstance(page, Path) else page
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            browser,
            *_FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={width_px},{height_px}",
            f"--screenshot={picture.resolve()}",
            url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds)
    if done.returncode or not picture.is_file():
        raise RuntimeError(f"Chromium made no picture of {url} (exit {done.returncode}):\n{done.stderr[-2000:]}")
