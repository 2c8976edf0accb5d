"""The web page in a browser: one walk through everything, in both themes and at both widths.

axe-core must find nothing in any state. The model is a fake one, so that the walk needs no training and no Ray.
BIOMECHGPT_SCREENSHOTS=folder keeps a picture of each state.
"""

import csv
import io
import json
import os
import re
import shutil

import pytest
from fake_model import KEY, FakeModel
from live_server import serving

from biomechgpt.questions.intent import Intent
from conftest import ROOT
from serve import examples
from serve.gateway import Gateway
from serve.settings import GatewaySettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = ROOT / "serve/page/node_modules/axe-core/axe.min.js"
FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
         "--enable-unsafe-swiftshader")  # fmt: skip
SLOW_MS = 120_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing: run `npm ci` in serve/page"),
]


@pytest.fixture(scope="module")
def url():
    model = FakeModel()
    for task in model.served.tasks.values():
        model.intents[task.templates[0]] = Intent("task", task.name)
    with serving(Gateway(model, GatewaySettings())) as address:
        yield address


@pytest.fixture(scope="module")
def walk():
    walks = [examples.mot(listed["name"]) for listed in examples.listed() if "walking" in listed["name"]]
    return max(walks, key=len).encode()


def upload(name, content):
    return {"name": name, "mimeType": "text/plain", "buffer": content}


class Walk:
    """A page and what it showed on the way: `check` looks for faults of accessibility, and takes a picture."""

    def __init__(self, page, name):
        self.page, self.name, self.errors = page, name, []
        page.set_default_timeout(SLOW_MS)
        page.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def check(self, state):
        page = self.page
        if folder := os.environ.get("BIOMECHGPT_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{self.name}-{state}.png", full_page=self.name.startswith("phone"))
        # The page's content security policy keeps foreign scripts out; this one comes through the debugger.
        page.evaluate(AXE.read_text() + "; 0")
        found = page.evaluate(
            "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => "
            "v.id + ': ' + v.nodes.map(n => n.html.slice(0, 200) + ' ' + n.failureSummary).join(' | ')))"
        )
        assert found == [], f"{self.name}, {state}"
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{self.name}, {state}: the page scrolls sideways"

    def text(self, selector):
        return self.page.locator(selector).text_content() or ""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_walk_through_everything(url, walk, width, theme):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SLOW_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        page = context.new_page()
        state = Walk(page, f"{'phone' if width < 500 else 'desktop'}-{theme}")
        page.goto(url, timeout=SLOW_MS)
        expect(page.locator("#key-dialog")).to_be_visible()
        state.check("1-key")
        page.locator("#key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#banner")).to_contain_text("synthetic")
        expect(page.locator("#examples button").first).to_be_visible()
        state.check("2-start")

        page.locator("#age").fill("62")
        page.locator("#sex").select_option("female")
        page.locator("#file").set_input_files(upload("walk.mot", walk))
        expect(page.locator("#curve-grid figure")).to_have_count(6)
        state.check("3-recording")
        cursor = page.locator("#curve-grid .cursor.now").first
        before = cursor.get_attribute("transform")
        page.locator("#scrub").focus()
        for _ in range(20):
            page.keyboard.press("ArrowRight")
        assert cursor.get_attribute("transform") != before
        assert re.search(r"R -?\d+°", state.text("#curve-grid .curve-value >> nth=0"))
        page.locator("#curve-axis input[value=cycle]").check()
        assert page.locator("#curve-grid .cursor.right").count() == 3
        state.check("4-gait-cycle")
        page.locator("#curve-axis input[value=time]").check()

        for title in ("Impaired", "Walking speed"):
            page.locator("#suggestions").get_by_text(title, exact=True).click()
            expect(page.locator("#messages").get_by_text(f"{title} · synthetic data")).to_be_visible()
        assert page.locator(".bars li").count() == 2
        assert "measured" in (page.locator(".interval-track").first.get_attribute("aria-label") or "")
        assert "women of 62 years" in state.text("#messages")
        state.check("5-answers")
        page.locator("#messages .why").first.click()
        expect(page.locator("#why")).to_be_visible()
        for words in ("right knee", "left hip"):
            assert words in state.text("#why-text")
        assert (
            page.locator("#curve-grid rect.for").count()
            == page.locator("#curve-grid rect.against").count()
            > 0
        )
        state.check("6-why")
        page.locator("#why-close").click()

        with page.expect_download() as downloaded:
            page.locator("#save-csv").click()
        rows = list(csv.DictReader(io.StringIO(downloaded.value.path().read_text())))
        assert [row["task"] for row in rows] == ["impaired", "walking_speed"]
        with page.expect_download() as downloaded:
            page.locator("#save-fhir").click()
        assert json.loads(downloaded.value.path().read_text())["resourceType"] == "Bundle"

        if width < 500:
            page.locator("#picker-toggle").click()
        page.locator("#beside").check()
        page.locator("#file").set_input_files(upload("second.mot", walk))
        expect(page.locator("#name-second")).to_have_text("B: second.mot")
        page.locator("#suggestions button").first.click()
        expect(page.locator("#messages .message.answer").nth(2)).to_be_visible()
        assert page.locator("#curve-grid .line.second").count() > 0
        state.check("7-two")
        page.locator("#close-second").click()
        expect(page.locator("#stage-second")).to_be_hidden()

        page.locator("#file").set_input_files([upload("one.mot", walk), upload("two.mot", b"nothing")])
        expect(page.locator("#table-status")).to_have_text("1 of 2 recordings answered")
        assert "cannot be used" in state.text("#table .problem")
        state.check("8-table")
        page.locator("#table-close").click()

        page.locator("#file").set_input_files(upload("broken.mot", b"nothing"))
        expect(page.locator("#load-error")).to_contain_text("This file cannot be used")
        page.locator("#load-error summary").click()
        expect(page.locator("#load-error .small")).to_contain_text("broken.mot")
        state.check("9-error")
        if folder := os.environ.get("BIOMECHGPT_SCREENSHOTS"):
            page.pdf(path=f"{folder}/{state.name}.pdf")
        browser.close()
    assert [error for error in state.errors if "422" not in error] == []
