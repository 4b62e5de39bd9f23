"""The rating page in a real browser: rated by keys, closed, opened again, exported, opened up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rating_texts

from feyntune.ratings import means, returned, sheets

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)

OURS = {theirs: ours for ours, (theirs, _) in means.NAMES.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sheets")
    sheets.write(sheets.make(rating_texts.completions(), rating_texts.settings()), folder)
    return folder


@contextmanager
def opened(page: Path, home: Path, **size: int) -> Iterator[webdriver.Chrome]:
    """A browser whose profile lies in ``home``; nothing but the page's file is within reach."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={home / 'profile'}",
        "--window-size=1100,900",
    ):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(home)})
    service = webdriver.ChromeService(executable_path=DRIVER)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get(page.as_uri())
        yield browser
        severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        # A text that attacks is text: nothing of it is even tried.
        assert severe == []
    finally:
        browser.quit()


def press(browser, *keys: str) -> None:
    for key in keys:
        browser.find_element(By.TAG_NAME, "body").send_keys(key)


def scores(browser) -> dict[str, str]:
    checked = browser.find_elements(By.CSS_SELECTOR, "input[type=radio]:checked")
    return {each.get_attribute("name"): each.get_attribute("value") for each in checked}


def codes(browser) -> list[str]:
    return [
        item.get_attribute("data-code") for item in browser.find_elements(By.CLASS_NAME, "item")
    ]


def status(browser) -> str:
    return browser.find_element(By.ID, "status").text


def eventually(found: Callable, seconds: float = 10):
    """What ``found`` gives, as soon as that is something: files come when the browser is ready."""
    end = time.monotonic() + seconds
    while not (result := found()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def exported(browser, home: Path) -> Path:
    browser.find_element(By.ID, "export").click()
    assert eventually(lambda: list(home.glob("ratings-*.csv")))
    (file,) = home.glob("ratings-*.csv")
    return file


def test_keys_rate_and_move(written, tmp_path):
    with opened(written / "sheets" / "CP.html", tmp_path) as browser:
        first = codes(browser)[:4]
        assert status(browser) == "0 of 12 rated"
        press(browser, "7", "0", "1")
        assert scores(browser) == dict(zip(first, ["7", "10", "1"], strict=False))
        press(browser, Keys.ARROW_UP, Keys.ARROW_UP, "3")  # the second again, then on to the last
        assert scores(browser)[first[1]] == "3"
        press(browser, "9")
        assert scores(browser)[first[3]] == "9" and status(browser) == "4 of 12 rated"
        press(browser, Keys.DELETE)
        assert first[3] not in scores(browser)
        press(browser, Keys.ARROW_RIGHT, "5")
        assert scores(browser)[codes(browser)[4]] == "5"
        press(browser, "n", "2")  # past the marked one
        assert scores(browser)[codes(browser)[6]] == "2"
        press(browser, "x", Keys.CONTROL + "8")
        assert len(scores(browser)) == 5


def test_a_mouse_rates_too(written, tmp_path):
    with opened(written / "sheets" / "CP.html", tmp_path) as browser:
        code = codes(browser)[2]
        box = browser.find_element(By.CSS_SELECTOR, f"input[name={code}][value='6']")
        label = box.find_element(By.XPATH, "..")
        # As a person would: what lies under the bar at the bottom is scrolled up first.
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", label)
        label.click()
        assert scores(browser) == {code: "6"}


def test_closed_and_opened_again_nothing_is_lost(written, tmp_path):
    page = written / "sheets" / "CP.html"
    with opened(page, tmp_path) as browser:
        press(browser, "7", "8", Keys.ARROW_RIGHT, "0")
        before = scores(browser)
        assert len(before) == 3
    with opened(page, tmp_path) as browser:
        assert scores(browser) == before and status(browser) == "3 of 12 rated"
        assert browser.find_element(By.ID, "place").text == "2 of 3", "where it was left"
    with opened(written / "sheets" / "VN.html", tmp_path) as browser:
        assert scores(browser) == {}, "another rater's sheet has scores of its own"


def test_what_is_exported_opens_with_the_key(written, tmp_path):
    """Every completion gets a score that says which it is; so they come out at their systems."""
    items = sheets.make(rating_texts.completions(), rating_texts.settings())
    own = items[items["rater"] == "CP"]
    given = [1 + at % 10 for at in range(len(own))]
    with opened(written / "sheets" / "CP.html", tmp_path) as browser:
        assert codes(browser) == own["code"].tolist()
        for number, score in enumerate(given):
            if number and number % 4 == 0:
                press(browser, Keys.ARROW_RIGHT)
            press(browser, str(score % 10))
        assert status(browser) == "All 12 rated: export the CSV"
        file = exported(browser, tmp_path)
    found, missing = returned.unblind([file], written / "key.csv")
    expected = dict(zip(zip(own["paper"], own["system"], strict=True), given, strict=True))
    rows = zip(found["paper"], found["model"].map(OURS), found["score"], strict=True)
    assert {(paper, system): int(score) for paper, system, score in rows} == expected
    assert set(missing["rater"]) == {"VN"}


def test_an_export_is_restored_in_another_browser(written, tmp_path):
    page = written / "sheets" / "CP.html"
    homes = [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    with opened(page, homes[0]) as browser:
        press(browser, "4", "5")
        before, file = scores(browser), exported(browser, homes[0])
        assert "10 continuations have no score yet" in browser.find_element(By.ID, "warning").text
    with opened(page, homes[1]) as browser:
        browser.find_element(By.ID, "file").send_keys(str(file))
        assert eventually(lambda: scores(browser)) == before
    other = homes[1] / "other.csv"
    other.write_text(file.read_text().replace(next(iter(before)), "bcdfghjklm"))
    with opened(page, homes[1]) as browser:
        press(browser, Keys.DELETE)
        left = scores(browser)
        browser.find_element(By.ID, "file").send_keys(str(other))
        warning = eventually(lambda: browser.find_element(By.ID, "warning").text)
        assert "no export of this sheet" in warning and scores(browser) == left


def test_tex_is_drawn_and_attacks_are_text(written, tmp_path):
    with opened(written / "sheets" / "CP.html", tmp_path) as browser:
        assert browser.title == "Rating sheet of CP"
        drawn = browser.find_elements(By.CSS_SELECTOR, ".paper:not([hidden]) .text math")
        assert drawn and all(each.size["height"] > 5 for each in drawn)
        (fraction,) = browser.find_elements(By.CSS_SELECTOR, ".paper:not([hidden]) mfrac")
        assert fraction.size["height"] > drawn[1].size["height"], "a fraction is two storeys"
        seen = browser.find_element(By.TAG_NAME, "main").text
        assert "Poincaré" in seen and r"$\unknownmacro{x}$ at 5%" in seen
        assert "<script>document.title='broken'</script>" in seen
        assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script")


def test_no_storage_is_said(written, tmp_path):
    with opened(written / "sheets" / "CP.html", tmp_path) as browser:
        browser.execute_script("Storage.prototype.setItem = () => { throw new Error('full'); }")
        press(browser, "4")
        assert "keeps nothing: export" in browser.find_element(By.ID, "warning").text
        assert len(scores(browser)) == 1
        browser.execute_script("window.onbeforeunload = null")
