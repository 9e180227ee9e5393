"""Screenshots of a report for the README: `python docs/screenshots.py REPORT.html`, or `make screenshots` after a demo.

Requires Debian's chromium, or another one named by the environment variable CHROMIUM.
"""

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
DESKTOP = {"viewport": {"width": 1240, "height": 860}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=IMAGES, help="directory of the screenshots")
    parser.add_argument("--window", type=int, default=0, help="index of the sampled window to show")
    parser.add_argument("--token", type=int, default=40, help="index of the token to choose")
    parser.add_argument("--shade", default="Student’s error", help="shading of the dark screenshot")
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        light = opened(browser, settings, color_scheme="light", **DESKTOP)
        choose(light, settings, "body")
        light.screenshot(path=settings.out / "report-light.png")
        # As tall as the page: without scrolling, the bar at the top covers nothing.
        light.set_viewport_size({"width": 1240, "height": 4000})
        light.locator("#distributions").screenshot(path=settings.out / "report-plots.png")
        dark = opened(browser, settings, color_scheme="dark", **DESKTOP)
        dark.get_by_text(settings.shade, exact=True).first.click()
        choose(dark, settings, "#reader")
        dark.screenshot(path=settings.out / "report-dark.png")
        phone = opened(browser, settings, color_scheme="light", **PHONE)
        choose(phone, settings, "#text")
        phone.screenshot(path=settings.out / "report-phone.png")
        browser.close()


def opened(browser: Browser, settings: argparse.Namespace, **context: object) -> Page:
    """The report, with its window chosen."""
    page = browser.new_context(**context).new_page()  # pyright: ignore[reportArgumentType]
    page.goto(settings.report.resolve().as_uri())
    page.locator("html[data-ready]").wait_for(state="attached")
    page.locator("#window").select_option(str(settings.window))
    return page


def choose(page: Page, settings: argparse.Namespace, top: str) -> None:
    """Chooses a token, and scrolls an element to the top of the view."""
    page.locator(".token").nth(settings.token).click()
    page.mouse.move(0, 0)
    page.evaluate("top => document.querySelector(top).scrollIntoView({ behavior: 'instant' })", top)


if __name__ == "__main__":
    main()
