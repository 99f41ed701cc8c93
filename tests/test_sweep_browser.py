"""The page in a real browser, opened as a file."""

import shutil
import time

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from sweep_rows import HOSTILE, a_failure, a_row, a_transformer

from puppetize.sweep.page import write_page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="chromium and chromedriver are not on PATH (Debian: chromium, chromium-driver)",
)

MISSING = "\N{EN DASH}"
ROWS = [
    *(a_row(f"net{i}", 2 + i / 10, 3 + i / 5, f"family{i % 12}", params=300_000 * (i + 1))
      for i in range(60)),
    a_row("resnet50", 9.5, 11.84, "resnet", params=25_557_032),
    a_row("resnet50", 9.4, 11.7, "resnet", zoo="torchvision", params=25_557_032),
    a_transformer("vit_tiny"),
    a_failure("rcnn"),
    a_failure(HOSTILE, HOSTILE),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--window-size=1400,1000"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(ROWS, path, "puppetize zoo '*'")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []


def text(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector).text


def column(page, key):
    """Texts of the table's visible cells, top to bottom."""
    return page.execute_script(
        "const cells = `#body tr:not([hidden]) td[data-key=${arguments[0]}]`;"
        "return [...document.querySelectorAll(cells)].map((cell) => cell.textContent)",
        key,
    )


def head(page, key):
    return page.find_element(By.CSS_SELECTOR, f"#head th[data-key={key}]")


def choose(page, selector, value):
    Select(page.find_element(By.CSS_SELECTOR, selector)).select_by_value(value)


def test_opens_without_a_network(browser, address):
    browser.get_log("performance")
    browser.get(address)
    log = "".join(entry["message"] for entry in browser.get_log("performance"))
    assert '"url":"file://' in log
    assert '"url":"http' not in log
    assert browser.title == "puppetize: what would I gain on my model?"
    assert len(column(browser, "name")) == len(ROWS)


def test_search_answers_while_typing(page):
    box = page.switch_to.active_element
    assert box.get_attribute("id") == "search"
    box.send_keys("net50")
    assert text(page, ".model-name").startswith("timm/net50")
    box.clear()
    box.send_keys("resn")
    assert text(page, ".gain") == "9.5 times smaller"
    answer = text(page, "#answer")
    assert "102.2 MB → 10.8 MB, 9.5 times smaller with default settings, up to 11.8" in answer
    assert "2 convolutions: depthwise; small" in answer
    assert "puppetize report timm/resnet50" in answer
    box.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    assert text(page, ".gain") == "9.4 times smaller"
    assert box.get_attribute("value") == "torchvision/resnet50"
    assert not page.find_element(By.ID, "matches").is_displayed()
    assert page.current_url.endswith("#torchvision/resnet50")


def test_search_without_a_match_says_what_to_do(page):
    page.find_element(By.ID, "search").send_keys("nosuchmodel")
    assert "No model of either zoo" in text(page, "#no-match")


def test_a_model_that_failed_says_why(page):
    page.find_element(By.ID, "search").send_keys("rcnn")
    assert "Failed: shapes depend on values" in text(page, "#answer")


def test_sort_by_mouse_and_keyboard(page):
    ratios = head(page, "ratio")
    button = ratios.find_element(By.TAG_NAME, "button")
    button.click()
    assert ratios.get_attribute("aria-sort") == "descending"
    shown = [float(cell) for cell in column(page, "ratio") if cell != MISSING]
    assert shown == sorted(shown, reverse=True)
    assert column(page, "ratio")[-2:] == [MISSING, MISSING]
    button.send_keys(Keys.ENTER)
    assert ratios.get_attribute("aria-sort") == "ascending"
    shown = [float(cell) for cell in column(page, "ratio") if cell != MISSING]
    assert shown == sorted(shown)
    assert column(page, "ratio")[-2:] == [MISSING, MISSING]
    head(page, "name").find_element(By.TAG_NAME, "button").click()
    assert ratios.get_attribute("aria-sort") is None
    names = [name for name in column(page, "name") if name.startswith("timm/net")]
    assert names == [f"timm/net{i}" for i in range(60)]


def test_every_column_sorts(page):
    for cell in page.find_elements(By.CSS_SELECTOR, "#head th"):
        cell.find_element(By.TAG_NAME, "button").click()
        assert cell.get_attribute("aria-sort") in ("ascending", "descending")
        assert len(column(page, "name")) == len(ROWS)


def test_filters_meet(page):
    choose(page, "#f-family", "family3")
    assert set(column(page, "family")) == {"family3"}
    assert text(page, "#count").startswith(f"5 of {len(ROWS)} models")
    page.find_element(By.ID, "f-params-from").send_keys("5")
    page.find_element(By.ID, "f-params-to").send_keys("10")
    assert sorted(column(page, "name")) == ["timm/net27"]
    page.find_element(By.ID, "f-reset").click()
    page.find_element(By.ID, "f-ratio-from").send_keys("8")
    assert sorted(column(page, "name")) == ["timm/resnet50", "torchvision/resnet50"]
    page.find_element(By.CSS_SELECTOR, "input[value=maxRatio]").click()
    assert len(column(page, "name")) == 2 + len([i for i in range(60) if 3 + i / 5 >= 8])
    choose(page, "#f-zoo", "torchvision")
    assert column(page, "name") == ["torchvision/resnet50"]
    page.find_element(By.ID, "f-reset").click()
    choose(page, "#f-status", "failed")
    assert len(column(page, "name")) == 2
    choose(page, "#f-kind", "cnn")
    assert text(page, "#count") == f"0 of {len(ROWS)} models"
    page.find_element(By.ID, "f-reset").click()
    page.find_element(By.ID, "f-text").send_keys("resnet 50")
    assert len(column(page, "name")) == 2


def test_the_legend_filters(page):
    button = page.find_element(By.CSS_SELECTOR, "#legend button")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert set(column(page, "family")) == {button.text}
    button.click()
    assert len(column(page, "name")) == len(ROWS)


def place(page):
    """Where the first point of the plot is, from the middle of the plot."""
    return page.execute_script(
        "const plot = document.getElementById('plot').getBoundingClientRect();"
        "const at = document.querySelector('#scatter > circle:not(.out)')"
        ".getBoundingClientRect();"
        "return [at.x + at.width / 2 - plot.x - plot.width / 2,"
        " at.y + at.height / 2 - plot.y - plot.height / 2].map(Math.round)"
    )


def test_hover_names_the_point_and_a_click_shows_it(page):
    page.find_element(By.ID, "f-text").send_keys("timm/net7")
    plot = page.find_element(By.ID, "plot")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    tip = page.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    where = place(page)
    ActionChains(page).move_to_element_with_offset(plot, *where).perform()
    assert tip.is_displayed()
    assert tip.text.splitlines() == [
        "timm/net7",
        "family7, 2.40 M parameters",
        "9.60 MB → 3.56 MB",
        "2.7 times smaller, at most 4.4",
    ]
    ActionChains(page).click().perform()
    assert text(page, ".model-name").startswith("timm/net7")
    current = page.find_element(By.CSS_SELECTOR, "#body tr[aria-current=true]")
    assert current.text.startswith("timm/net7")
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "h1")).perform()
    assert not tip.is_displayed()


def test_the_plot_works_by_keyboard(page):
    choose(page, "#f-family", "family3")
    plot = page.find_element(By.ID, "plot")
    plot.send_keys(Keys.ARROW_RIGHT)
    plot.send_keys(Keys.ARROW_RIGHT)
    assert text(page, "#tip strong") == "timm/net15"
    plot.send_keys(Keys.ENTER)
    assert text(page, ".model-name").startswith("timm/net15")


def test_the_table_works_by_keyboard(page):
    choose(page, "#f-family", "family3")
    head(page, "name").find_element(By.TAG_NAME, "button").click()
    stops = page.find_elements(By.CSS_SELECTOR, "#body button[tabindex='0']")
    assert [stop.text for stop in stops] == ["timm/net3"]
    stops[0].send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert text(page, ".model-name").startswith("timm/net15")


def test_an_address_leads_to_a_model(page, address):
    page.get("about:blank")
    page.get(f"{address}#timm/net42")
    assert text(page, ".model-name").startswith("timm/net42")


def test_hostile_text_stays_text(page):
    page.find_element(By.ID, "search").send_keys("owned")
    assert HOSTILE.split("\u2028")[0] in text(page, ".model-name")
    assert "owned" not in page.title


@pytest.mark.parametrize("width", [360, 768, 1400])
def test_nothing_sticks_out(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        deadline = time.monotonic() + 10
        drawn = "return document.getElementById('scatter').viewBox.baseVal.width"
        wide = "return document.getElementById('plot').clientWidth"
        while page.execute_script(drawn) != page.execute_script(wide):
            assert time.monotonic() < deadline
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
