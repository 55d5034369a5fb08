"""A picture has the asked size and shows the page."""

from pathlib import Path

import pytest
from PIL import Image

from tests.servers.chromium import find_chromium, screenshot


@pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed (CI installs it)")
def test_a_page_is_pictured(tmp_path: Path) -> None:
    page = tmp_path / "page with spaces.html"
    page.write_text("<body style='margin:0;background:rgb(10,200,30)'>")
    screenshot(page, tmp_path / "page.png", width_px=640, height_px=400)
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (640, 400)
        assert picture.convert("RGB").getpixel((320, 200)) == (10, 200, 30)
