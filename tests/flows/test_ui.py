"""The pages of the Prefect UI in a real browser.

`make screenshots` runs the same, on the sample dataset, and keeps the pictures for README and docs.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import CHECKOUT, Api, Ended, darkroom, run_id_of
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from data.generate import BROKEN, write_sample
from tests.needs import needs

PICTURES = os.environ.get("SCREENSHOTS")
"""Folder for screenshots, if any are wanted."""

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 60_000
LONG = f"new/{'-'.join(['cut'] * 60)}.jpg"
"""A name that does not fit on one line."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=needs("chromium", "chromium"), args=SWITCHES)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if PICTURES:  # on which the folder's name can be read
        with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
            yield Path(name)
    else:
        yield tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def nights(api: Api, folder: Path) -> Path:
    """Run two nights of the sample dataset, with three broken images, and return their destination."""
    source, destination = folder / "photos", folder / "dataset"
    images = write_sample(source, 240, scale=1.0) if PICTURES else write_sample(source, 70, scale=0.3)
    assert run(api, source, destination).code == 0
    for image in images[::10]:
        if image.suffix == ".jpg":
            image.write_bytes(image.read_bytes() + b"\0")  # bytes after the end of a JPEG are ignored
    for name in ("new/cut short.jpg", "new/error page.jpg", *([] if PICTURES else [LONG])):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((source / BROKEN[("cut" not in name)]).read_bytes())
    assert run(api, source, destination).code == 0
    return destination


def run(api: Api, source: Path, destination: Path) -> Ended:
    return darkroom("run", source, destination, "--max-failure-ratio", "0.5", environment=api.environment)


@pytest.fixture
def see(browser: Browser, api: Api) -> Iterator[Callable[[str], Page]]:
    """Provide a function that opens a page of the UI."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)

    def visit(path: str) -> Page:
        page.goto(f"{api.url.removesuffix('/api')}/{path}")
        return page

    yield visit
    page.close()


def keep(page: Page, name: str) -> None:
    if PICTURES:
        page.wait_for_load_state("networkidle")
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            # Few colours are enough for a page, and make a third of the bytes.
            picture.convert("RGB").quantize(128).save(CHECKOUT / PICTURES / f"{name}.png", optimize=True)


def test_a_run_and_its_artifacts(see: Callable[[str], Page], api: Api, nights: Path):
    run_id = run_id_of(nights)
    message = api.flow_run(run_id)["state"]["message"]
    artifacts = {each["key"].rpartition("-")[2]: each for each in api.artifacts(run_id)}

    page = see(f"runs/flow-run/{run_id}")
    expect(page.get_by_text("Completed").first).to_be_visible()
    expect(page.get_by_text(re.compile("dataset 20")).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"images to process .*new.* in \d+ shards?")).first).to_be_visible()
    keep(page, "run")
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text(artifacts["summary"]["key"]).first).to_be_visible()
    expect(page.get_by_text(artifacts["failures"]["key"]).first).to_be_visible()

    page = see(f"artifacts/artifact/{artifacts['summary']['id']}")
    expect(page.get_by_role("heading", name=message)).to_be_visible()
    for heading in ("A sample of what was made", "What failed", "Last runs", "Time per image"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("in the manifest"))).to_be_visible()
    pictures = page.locator("img[src^='data:image/']")
    kinds = pictures.evaluate_all("images => images.map(image => image.src.slice(11, 14))")
    assert sorted(kinds) == ["jpe", "jpe", "svg"], "what was made, what failed, and the trend"
    for number in range(3):
        picture = pictures.nth(number)
        picture.scroll_into_view_if_needed()
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.complete && image.naturalWidth") > 100, "drawn, not broken"
    page.mouse.wheel(0, -100_000)
    keep(page, "summary")

    page = see(f"artifacts/artifact/{artifacts['failures']['id']}")
    expect(page.get_by_role("heading", name="decode.truncated")).to_be_visible()
    for name in ("new/cut short.jpg", *([] if PICTURES else [LONG])):
        line = page.get_by_role("listitem").filter(has_text=name)
        expect(line).to_be_visible()
        assert line.evaluate("item => item.scrollWidth <= item.clientWidth"), "it fits"
    keep(page, "failures")

    key = artifacts["summary"]["key"]
    versions = api.post("artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
    assert len(versions) == 2, "one a night"
    page = see(f"artifacts/key/{key}")
    for version in versions:
        expect(page.locator(f"a[href='/artifacts/artifact/{version['id']}']").first).to_be_visible()
        # The list is a history of results.
        expect(page.get_by_text(f"report: {version['description']}", exact=True)).to_be_visible()
    keep(page, "versions")


def test_a_failed_run_shows_its_reason(see: Callable[[str], Page], api: Api, nights: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert run(api, tmp_path / "empty", nights).code == 1
    [failed] = api.post("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    reason = "The source holds no images"

    page = see(f"runs/flow-run/{failed['id']}")
    expect(page.get_by_text("Failed").first).to_be_visible()
    expect(page.get_by_text(re.compile(reason)).first).to_be_visible()

    [summary] = [each for each in api.artifacts(failed["id"]) if each["key"].endswith("summary")]
    page = see(f"artifacts/artifact/{summary['id']}")
    expect(page.get_by_role("heading", name="Failed", exact=True)).to_be_visible()
    expect(page.get_by_text(reason).first).to_be_visible()
