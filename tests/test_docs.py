"""The pages of docs/ and the README: their commands run as they stand, one after the other, and the site builds.

A block that cannot run here follows a comment, <!-- not run: why -->; its commands of ours are parsed all the same.
CONFIG.toml and RUN, which pages speak of, are there. A config that begins with its name, # mine.toml, is written; the
Python of a page is one program.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from jobs import BIN

from hdnn_dist.cli.commands import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>sh|python|toml)\n(?P<text>.*?)^```$", re.M | re.S
)
QUICK = {"index.md"}  # of a page that many read first
CONFIG = 'graph = "ring:8"\nepochs = 2\n[network]\nlayers = 4\n[data]\nsamples = 400\n'
HANGS = 900


def blocks(page: Path) -> Iterator[tuple[str, str, bool]]:
    """(language, text, whether it runs here) of every block of commands."""
    for found in BLOCK.finditer(page.read_text()):
        yield found["language"], found["text"], found["why"] is None


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each hdnn-dist in a block."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "hdnn-dist":
            yield words[1:]


def texts(page: Path) -> list[str]:
    """All that is code on a page; the README has it indented."""
    if page.parent.name == "docs":
        return [text for _, text, _ in blocks(page)]
    return [line.removeprefix("    ") for line in page.read_text().splitlines() if line.startswith("    hdnn-dist")]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(arguments, id=f"{page.stem}: {' '.join(arguments)}")
        for page in PAGES
        for text in texts(page)
        for arguments in commands(text)
    ],
)
def test_commands_have_the_options_that_pages_name(arguments: list[str]) -> None:
    group = typer.main.get_command(app)
    context = group.make_context("hdnn-dist", arguments, resilient_parsing=True)
    name, command, rest = group.resolve_command(context, arguments)
    command.make_context(name, rest)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like a clone's, where commands may write."""
    for name in ("launch", "topologies"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "CONFIG.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.timeout(HANGS)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=() if page.name in QUICK else pytest.mark.slow)
        for page in PAGES
        if any(runs for _, _, runs in blocks(page))
    ],
)
def test_the_commands_of_a_page_run(page: Path, place: Path) -> None:
    """In its order, in one folder."""
    about = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    if re.search(r"\bRUN\b", page.read_text()):
        run(["hdnn-dist", "train", "CONFIG.toml", "--run-dir", "RUN"], place, about)
    program = ""
    for language, text, runs in blocks(page):
        if language == "toml":
            write_config(text, place)
        elif runs and language == "sh":
            run(["bash", "-euo", "pipefail", "-c", text], place, about)
        elif runs:
            program += text
            run([sys.executable, "-c", program], place, about)


def write_config(text: str, place: Path) -> None:
    named = re.match(r"# (\S+\.toml)\n", text)
    if named is not None:
        (place / named[1]).write_text(text)


def run(line: list[str], place: Path, about: dict[str, str]) -> None:
    done = subprocess.run(line, cwd=place, env=about, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, f"{line[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra docs is not installed")
    site = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        site, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "data-md-color-scheme" in (tmp_path / "site" / "index.html").read_text()
