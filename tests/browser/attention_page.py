"""The page of tools/show_attention.py in a real browser: `make test-browser`.

Not named test_*.py, so that only that target runs it: it needs Chromium and its driver.
"""

import re
import shutil

import numpy as np
import pytest
import torch
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from skimage import data

from panet_plugin.archs import PANet
from panet_plugin.visualization import AttentionProbe, attention_page, grid

NAMES = {"Chromium": ("chromium", "chromium-browser", "google-chrome"), "its driver": ("chromedriver",)}
#: What is hostile in HTML, and what JavaScript would have replaced.
TITLE = "</script><script>document.title = 'taken over'</script><b>$& \u2028 \"photo\".png"
EVERY = 8


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = {what: next(filter(None, map(shutil.which, names)), None) for what, names in NAMES.items()}
    if missing := [what for what, path in found.items() if path is None]:
        pytest.exit(
            f"{' and '.join(missing)} not found. On Debian: apt-get install chromium chromium-driver", returncode=1
        )
    options = webdriver.ChromeOptions()
    options.binary_location = found["Chromium"]
    for option in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
        *("disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('profile')}"),
        *("disable-dev-shm-usage", "window-size=1200,900"),
    ):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(found["its driver"]))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def probe():
    torch.manual_seed(0)
    network = PANet(mid_channels=8, num_blocks=2, attention={"levels": 3, "softmax_scale": 30.0, "window": 21})
    return AttentionProbe(network, np.ascontiguousarray(data.chelsea()[90:130, 120:184]))


@pytest.fixture
def page(browser, probe, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(attention_page(probe, grid(64, 40, EVERY), TITLE, matches=5), encoding="utf-8")
    browser.get(path.as_uri())
    yield browser
    problems = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert problems == []


def from_top_left(page, x, y):
    """Return the offset in the window of the middle of a pixel."""
    frame = page.execute_script("return document.querySelector('#image img').getBoundingClientRect().toJSON()")
    return round(frame["x"] + (x + 0.5) * frame["width"] / 64), round(frame["y"] + (y + 0.5) * frame["height"] / 40)


def hover(page, x, y):
    builder = ActionBuilder(page)
    builder.pointer_action.move_to_location(*from_top_left(page, x, y))
    builder.perform()


def rows(page, table):
    return [
        [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in page.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    ]


def percent(text):
    assert text.endswith(" %")
    return float(text[:-2]) / 100


def check(page, probe, x, y):
    """Compare what is shown with what is computed for a pixel."""
    (view,) = probe.views([(x, y)], 5)
    assert page.find_element(By.ID, "pixel").text == f"Pixel ({x}, {y})"
    shown = rows(page, "best")
    assert shown[0] == ["", "", "the pixel's own patch"]
    assert len(shown) == 1 + len(view.matches)
    for number, (row, match) in enumerate(zip(shown[1:], view.matches, strict=True), 1):
        assert row[0] == str(number)
        assert row[2] == f"{match.level + 1}, scale {match.scale:g}"
        assert [float(at) for at in row[3].split(", ")] == pytest.approx([match.x, match.y], abs=0.0501)
        assert percent(row[4]) == pytest.approx(match.weight, rel=0.006)
        assert float(row[5].removesuffix(" times").replace(",", "")) == pytest.approx(
            match.weight * view.seen, rel=0.06
        )
    shares = [percent(row[1]) for row in rows(page, "levels")]
    assert shares == pytest.approx([float(level.sum()) for level in view.weights], rel=0.006)
    # The boxes over the image, in its pixels.
    boxes = page.execute_script(
        "return [...document.querySelectorAll('rect.match')].map("
        "box => ['x', 'y', 'width', 'height'].map(name => Number(box.getAttribute(name))))"
    )
    for box, match in zip(boxes, view.matches, strict=True):
        corner = [match.x + 0.5 - match.width / 2, match.y + 0.5 - match.height / 2]
        assert box == pytest.approx([*corner, match.width, match.height], abs=1e-4)
    return view


def test_hovering_a_pixel_shows_its_matches(page, probe):
    places = grid(64, 40, EVERY)
    views = []
    for x, y in (places[0], places[19], places[-1]):
        hover(page, x, y)
        views.append(check(page, probe, x, y))
    assert len({view.matches[0] for view in views}) > 1, "the pixels tell nothing apart"
    # Between points the nearest one is shown.
    x, y = places[10]
    hover(page, x + EVERY // 2 - 1, y - EVERY // 2 + 1)
    check(page, probe, x, y)


def test_boxes_lie_over_the_image(page):
    hover(page, *grid(64, 40, EVERY)[12])
    x, y = grid(64, 40, EVERY)[12]
    box = page.execute_script("return document.querySelector('rect.own').getBoundingClientRect().toJSON()")
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    assert middle == pytest.approx(from_top_left(page, x, y), abs=1.5)


def test_arrow_keys(page, probe):
    start = page.find_element(By.ID, "pixel").text
    x, y = map(int, re.findall(r"\d+", start))
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "image"
    ActionChains(page).send_keys(Keys.ARROW_RIGHT).send_keys(Keys.ARROW_UP).perform()
    check(page, probe, x + EVERY, y - EVERY)
    ActionChains(page).send_keys(Keys.ARROW_LEFT * 20).perform()
    check(page, probe, grid(64, 40, EVERY)[0][0], y - EVERY)
    ActionChains(page).send_keys(Keys.ARROW_DOWN).perform()
    check(page, probe, grid(64, 40, EVERY)[0][0], y)


def test_touch(page, probe):
    x, y = grid(64, 40, EVERY)[21]
    builder = ActionBuilder(page, mouse=PointerInput(POINTER_TOUCH, "finger"))
    builder.pointer_action.move_to_location(*from_top_left(page, x, y)).pointer_down().pointer_up()
    builder.perform()
    check(page, probe, x, y)


def test_text_is_text(page, probe):
    expected = f"{TITLE}: attention of {probe.block}"
    heading = page.find_element(By.ID, "title")
    assert heading.get_attribute("textContent") == expected
    assert heading.find_elements(By.CSS_SELECTOR, "*") == []
    assert page.title.startswith("</script>")


def test_nothing_is_fetched(page):
    fetched = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []


@pytest.mark.parametrize("width", [1200, 400])
def test_it_fits_the_window(page, width):
    page.set_window_size(width, 900)
    scroll, inner = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    page.set_window_size(1200, 900)
    assert scroll <= inner
