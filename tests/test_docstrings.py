"""Every public name with an array in its signature says in its docstring what shape the array has.

The sources are parsed, not imported, so that rooms whose libraries are not installed are checked as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hdnn_dist"
ROOMS = sorted(room.name for room in PACKAGE.iterdir() if (room / "__init__.py").exists())

ARRAYS = frozenset({"Tensor", "ndarray", "NDArray", "ArrayLike"})
KIND = r"(?:local |buffer |halo )?"
# 2 E, 1 or layers, *shape, local rows, sum of all lengths, positions..., and ... alone; no coordinate
TERM = rf"(?!0\b)(?:(?:\d+ (?:or )?)?\*?{KIND}[^\W_]\w*(?: of \w+(?: \w+)*)?(?:\.\.\.)?|\.\.\.)"
DIMENSION = rf"{TERM}(?: ?[-+*/^] ?{TERM})*"
SHAPE = re.compile(
    rf"(?<!\w)(?!\(i, k\))\({DIMENSION}(?:,|(?:, {DIMENSION})+)(?:\[, \w+\.\.\.\])?\)"  # (i, k) is a pair of agents
    r"|\b(?:scalars?|a number|(?:the same|any|of its) shape|shape of|elementwise)\b"
    r"|^As ``"  # that name, where it is said
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def names(node: ast.AST | None) -> set[str]:
    """Every name in a type, modules and what is taken from them alike."""
    nodes = ast.walk(node) if node else ()
    return {getattr(part, "id", None) or getattr(part, "attr", "") for part in nodes}


def aliases() -> frozenset[str]:
    """What the package calls arrays and containers of them, such as ``IntArray``; not functions that take them."""
    files = [ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")]
    given = [node for file in files for node in file.body if isinstance(node, ast.Assign)]
    types = [node for node in given if names(node.value) & ARRAYS and "Callable" not in names(node.value)]
    return frozenset(target.id for node in types for target in node.targets if isinstance(target, ast.Name))


KNOWN = ARRAYS | aliases()


def holds_array(*annotations: ast.expr | None) -> bool:
    """Whether one of these types has an array anywhere in it."""
    return any(names(annotation) & KNOWN for annotation in annotations)


def parameters(function: Function) -> list[ast.expr | None]:
    """The types of what a function takes."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [parameter.annotation for parameter in every if parameter]


def states_shape(node: Function | ast.ClassDef) -> bool:
    """Whether its docstring gives a shape."""
    return bool(SHAPE.search(ast.get_docstring(node) or ""))


def class_states_shape(node: ast.ClassDef, lines: list[str]) -> bool:
    """Whether its docstring does, or that of its constructor, or else what stands at each field with an array."""
    starts = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    if any(map(states_shape, [node, *starts])):
        return True
    taken = [annotation for start in starts for annotation in parameters(start)]
    return not holds_array(*taken) and all(SHAPE.search(text) for text in array_fields(node, lines))


def array_fields(node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """The lines of each public field that holds an array, with the comment above and the docstring below."""
    for part, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and is_public(ast.unparse(part.target)) and holds_array(part.annotation):
            first = part.lineno - (2 if lines[part.lineno - 2].lstrip().startswith("#") else 1)
            yield "\n".join(lines[first : below.end_lineno if isinstance(below, ast.Expr) else part.end_lineno])


def is_public(name: str) -> bool:
    """Whether it has no leading underscore."""
    return not name.startswith("_")


def offenders(body: list[ast.stmt], lines: list[str], path: str = "") -> Iterator[tuple[int, str]]:
    """Line and name of every public function, class and method that does not state a shape and should."""
    for node in body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            if not class_states_shape(node, lines):
                yield node.lineno, path + node.name
            yield from offenders(node.body, lines, f"{path}{node.name}.")
        elif (
            isinstance(node, Function)
            and is_public(node.name)
            and holds_array(*parameters(node), node.returns)
            and not states_shape(node)
        ):
            yield node.lineno, path + node.name


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_state_shapes(room: str) -> None:
    """Whoever reads a signature learns from its docstring what the dimensions are."""
    found = []
    for file in sorted((PACKAGE / room).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        places = offenders(ast.parse(text).body, text.splitlines())
        found += [f"{file.relative_to(PACKAGE.parent)}:{line} {name}" for line, name in places]
    assert not found, "no shape in the docstring of\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        *("(agents,)", "(n, n)", "(..., rows, columns)", "(2, T)", "starts (agents + 1,)", "(2 E,)", "(*shape, width)"),
        *("(samples, features of the local agents)", "``(batch, features)``", "two scalars", "As ``Stepper.forward``."),
        *("(batch, local features[, positions...])", "(1 or layers, size)", "(rows + halo rows, width)"),
    ],
)
def test_accepts_shapes(text: str) -> None:
    """The ways in which shapes are written here."""
    assert SHAPE.search(text)


@pytest.mark.parametrize(
    "text", ["the pair (i, k)", "range(a, b)", "(agents)", "(if any, all of them)", "()", "at (0, 2)", "(3, 0.5)"]
)
def test_takes_nothing_else_for_a_shape(text: str) -> None:
    """Pairs of agents, calls, prose and coordinates are not shapes."""
    assert not SHAPE.search(text)


def test_finds_what_states_no_shape() -> None:
    """Functions, methods, fields and constructors, wherever the array is in the type; private ones are left alone."""
    text = '''
def one(x: Tensor | None) -> int: """A number."""
class Two:
    """Fields."""
    x: np.ndarray  # (agents,)
    y: list[IntArray]
    def three(self) -> dict[str, Tensor]: ...
    def four(self, x: Tensor) -> Tensor: """As ``Base.four``."""
class Five:
    x: Tensor
    """(agents,)"""
    def _six(self, x: Tensor) -> None: ...
class Seven:
    def __init__(self, x: Tensor) -> None: ...
def _eight(x: Tensor) -> None: ...
'''
    assert [name for _, name in offenders(ast.parse(text).body, text.splitlines())] == [
        "one", "Two", "Two.three", "Seven"
    ]  # fmt: skip
