"""The page's modules under node's own test runner, and what the page weighs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chat.frontends.web import STATIC

HERE = Path(__file__).parent
MOST_BYTES = 150_000
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
    assert sum(path.stat().st_size for path in SOURCES) <= MOST_BYTES


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
