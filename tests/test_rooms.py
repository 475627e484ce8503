"""The house: few rooms, no circle, imports from files, small files and functions. Who may import whom: `make check`."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from statistics import median

import networkx as nx
import pytest

import hdnn_dist

ROOT = Path(hdnn_dist.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_ROOMS, LONGEST_CHAIN, MOST_LINES = 17, 13, 300
MEDIAN_LINES, LONG_FUNCTION, MOST_LONG = 6, 25, 0.02


def module(path: Path) -> str:
    """hdnn_dist.room.file; a face is called like its room."""
    return ".".join(["hdnn_dist", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The files and faces of the package that a file imports from, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hdnn_dist"):
            names = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= names or {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & MODULES.keys()
    return found


IMPORTS = {name: imported(path) for name, path in MODULES.items()}
FACES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "the face"


def test_no_file_is_part_of_a_circle() -> None:
    circles = nx.DiGraph((here, there) for here, those in IMPORTS.items() for there in those)
    assert nx.is_directed_acyclic_graph(circles), nx.find_cycle(circles)


def test_rooms_are_few_and_their_longest_chain_is_short() -> None:
    rooms = nx.DiGraph(
        (room(here), room(there)) for here, those in IMPORTS.items() for there in those if room(here) != room(there)
    )
    assert nx.is_directed_acyclic_graph(rooms), nx.find_cycle(rooms)
    assert len({path.relative_to(ROOT).parts[0] for path in FILES}) <= MOST_ROOMS
    assert len(nx.dag_longest_path(rooms)) <= LONGEST_CHAIN, nx.dag_longest_path(rooms)


def test_imports_are_from_files_not_from_faces() -> None:
    """But for faces themselves, which hand on what is theirs."""
    faces = {here: sorted(those & FACES) for here, those in IMPORTS.items() if here not in FACES and those & FACES}
    assert not faces


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: lines for path, lines in lengths.items() if lines > MOST_LINES}


def test_functions_are_short() -> None:
    nodes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text()))]
    lengths = [node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef)]
    assert median(lengths) <= MEDIAN_LINES
    assert sum(lines > LONG_FUNCTION for lines in lengths) <= MOST_LONG * len(lengths)


@pytest.mark.parametrize("face", sorted(FACES - {"hdnn_dist"}))
def test_a_face_says_what_its_room_is_for(face: str) -> None:
    told = ast.get_docstring(ast.parse(MODULES[face].read_text()))
    assert told
    assert "\n\n" in told or told.count(".") <= 2, "one sentence"


@pytest.mark.parametrize("face", sorted(FACES - {"hdnn_dist"}))
def test_what_a_face_hands_on_hides_no_file(face: str) -> None:
    """A function of the name of its file would take the file's place in ``import room.file as name``."""
    handed_on = getattr(importlib.import_module(face), "__all__", [])
    assert not {f"{face}.{name}" for name in handed_on} & MODULES.keys()
