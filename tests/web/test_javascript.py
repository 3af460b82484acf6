"""The page's modules under node's own test runner, and what the page weighs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chat.colors import contrast
from chat.frontends.web import STATIC

HERE = Path(__file__).parent
MOST_BYTES = 150_000
READ_ON = {
    "text": ["bg", "side", "raised", "hover", "tint"],
    "soft": ["bg", "side", "raised", "hover", "tint"],
    "accent": ["bg", "side", "raised", "tint"],
    "warm": ["bg", "side", "raised", "warm-tint"],
    "on-accent": ["accent"],
    "on-warm": ["warm"],
    "edge": ["bg", "raised", "side"],
}
SOURCES = sorted(path for path in STATIC.rglob("*") if path.is_file())


def test_modules_under_node():
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    tests = [str(path) for path in sorted(HERE.glob("*.test.mjs"))]
    assert tests
    ran = subprocess.run([node, "--test", *tests], capture_output=True, text=True, timeout=60, cwd=HERE)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    passed = re.search(r"^# pass (\d+)$", ran.stdout, re.MULTILINE) or re.search(r"pass (\d+)", ran.stdout)
    assert passed
    assert int(passed[1]) >= len(tests)


def test_the_page_is_light():
    assert sum(path.stat().st_size for path in SOURCES if path.suffix != ".svg") <= MOST_BYTES  # without images


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_makes_markup_of_text_or_leaves_the_origin(path):
    """What the Content-Security-Policy forbids, and what makes HTML of strings, is not even written down."""
    text = path.read_text()
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc", "DOMParser"):
        assert forbidden not in text
    if path.suffix == ".html":
        assert not re.search(r"\bstyle\s*=|\son[a-z]+\s*=|<style|javascript:", text)
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert set(re.findall(r"https?://[\w.-]+", text)) <= {"http://www.w3.org"}  # the name of SVG, which is not fetched


def test_text_stands_out_in_light_and_dark():
    """WCAG 2.2 AA: 4.5:1 for text, 3:1 for the edges of fields."""
    theme = (STATIC / "css" / "theme.css").read_text()
    pairs = dict(re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}, #[0-9a-f]{6})\)", theme))
    colors = {name: pair.split(", ") for name, pair in pairs.items()}
    for text, grounds in READ_ON.items():
        for ground in grounds:
            for mode in (0, 1):
                least = 3 if text == "edge" else 4.5
                found = contrast(colors[text][mode], colors[ground][mode])
                assert found >= least, f"{text} on {ground} ({('light', 'dark')[mode]}): {found:.2f}"
