"""The rules that keep the code livable: imports go one way, never in a circle, and libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "mmsent"

# Rooms and files at the root by floor. A file imports from its own room and from lower floors; rooms on one floor do
# not know each other, except the leaves.
FLOORS: list[tuple[str, ...]] = [
    ("errors", "version", "metrics"),
    ("config",),
    ("system",),
    ("data",),
    ("encoders",),
    ("features.cache",),
    ("features",),
    ("training",),
    ("inference", "sweep"),
    ("evaluation", "export"),
    ("report",),
    ("serve",),
    ("api",),
    ("__init__",),
    ("cli",),
    ("__main__",),
]
# What a room must not import although it stands on a lower floor.
UNKNOWN = {
    "training": {"data", "encoders", "features"},
    "sweep": {"data", "encoders", "features"},
}
ONLY_IN = {
    "h5py": {"features.cache"},
    "sqlite3": {"features.cache"},
    "open_clip": {"encoders"},
    "timm": {"encoders"},
    "sentence_transformers": {"encoders"},
    "vaderSentiment": {"encoders"},
    "typer": {"cli"},
    "imagehash": {"data"},
    "cleanlab": {"evaluation"},
    "pandas": {"api"},
    "onnx": {"encoders", "export"},
    "onnxscript": {"export"},
    "onnxruntime": {"encoders", "export"},
    "openvino": {"encoders"},
    "nncf": {"encoders"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "prometheus_client": {"serve"},
    "python_multipart": {"serve"},
    "optuna": {"sweep"},
    "ray": {"features", "sweep"},
    "pickle": set(),
}
# Tests of the whole program, beside those of the room `system`; those of whole commands are in cli.
WHOLE = {
    "fresh_home",
    *(
        "cases",
        "container",
        "crash",
        "docs",
        "export_mvsa",
        "fixtures",
        "fuzz",
        "mvsa",
        "notebook",
        "page",
        "properties",
    ),
    *("quickstart", "refusals", "remote", "reproduce", "robustness", "security"),
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module(path: Path) -> str:
    """`training.fit` for mmsent/training/fit.py; a package is its `__init__`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(name: str) -> str:
    """The room that a module stands in, or itself where it stands at the root."""
    return next(
        (
            r
            for floor in reversed(FLOORS)
            for r in sorted(floor, key=len, reverse=True)
            if f"{name}.".startswith(f"{r}.") and (r != "features" or not name.startswith("features.cache."))
        ),
        name,
    )


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it, those for type checkers included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = {module(path): path for path in files()}


def own(name: str) -> str | None:
    """The module of this package behind a dotted name; None for other libraries'."""
    parts = name.split(".")
    if parts[0] != "mmsent":
        return None
    for end in range(len(parts), 0, -1):
        inner = ".".join(parts[1:end])
        if inner in MODULES:
            return inner
        if (package := f"{inner}.__init__" if inner else "__init__") in MODULES:
            return package
    raise AssertionError(f"{name} is no module")


EDGES = {
    name: {found for one in imported(path) if (found := own(one)) and found != name} for name, path in MODULES.items()
}


def test_every_file_has_a_room() -> None:
    known = {r for floor in FLOORS for r in floor}
    assert {room(name) for name in MODULES} == known


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    if name == "__init__":
        return  # it names what it hands out, and imports it at first use; the last test here holds that
    floor = {r: k for k, rooms in enumerate(FLOORS) for r in rooms}
    here = room(name)
    for target in EDGES[name]:
        there = room(target)
        if there != here:
            assert floor[there] < floor[here] or (here in FLOORS[0] and there in FLOORS[0]), f"{name} imports {target}"
            assert there not in UNKNOWN.get(here, set()), f"{name} imports {target}"


def circles() -> list[list[str]]:
    """Sets of files that import each other, each once (Tarjan's strongly connected components)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    names = sorted(EDGES)
    place = {name: k for k, name in enumerate(names)}
    pairs = [(place[a], place[b]) for a in names for b in EDGES[a] if a != "__init__"]
    matrix = csr_array(([1] * len(pairs), ([a for a, _ in pairs], [b for _, b in pairs])), shape=(len(names),) * 2)
    count, member = connected_components(matrix, directed=True, connection="strong")
    found = [[name for name, k in zip(names, member, strict=True) if k == number] for number in range(count)]
    return [circle for circle in found if len(circle) > 1]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles() == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith(".__init__")])
def test_a_rooms_init_holds_no_code(name: str) -> None:
    for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        names = isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]
        assert docstring or names or isinstance(node, ast.ImportFrom), f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", MODULES)
def test_libraries_stay_in_their_rooms(name: str) -> None:
    for one in imported(MODULES[name]):
        library = one.split(".")[0]
        if library in ONLY_IN:
            assert room(name) in ONLY_IN[library], f"{library} is imported in {name}"


def test_no_private_name_is_imported() -> None:
    private = {
        (name, one)
        for name in MODULES
        for one in imported(MODULES[name])
        if one.startswith("mmsent.") and (last := one.rsplit(".", 1)[1]).startswith("_") and not last.startswith("__")
    }
    assert not private


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_import_what_is_defined(path: Path) -> None:
    """Each name comes from the file that defines it, so that a move inside the package cannot break a script."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmsent."):
            source = own(node.module or "")
            assert source is not None
            names = {alias.name for alias in node.names}
            defined = names if source.endswith("__init__") else set(top_level(MODULES[source]))
            assert names <= defined, f"mmsent.{source} does not define {sorted(names - defined)}"


def top_level(path: Path) -> Iterator[str]:
    """Names of the functions, classes and variables that a file defines or hands on (`import Post as Post`)."""
    body = list(ast.parse(path.read_text(encoding="utf-8")).body)
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            body += [*node.body, *node.orelse]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if alias.asname == alias.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (name.id for name in ast.walk(node) if isinstance(name, ast.Name))


def test_tests_mirror_the_rooms() -> None:
    """tests/ROOM/test_MODULE.py or test_MODULE_ASPECT.py tests mmsent/ROOM/MODULE.py."""
    for path in TESTS.rglob("test_*.py"):
        place, name = path.parent.relative_to(TESTS), path.stem.removeprefix("test_")
        if place == Path("cli") or (place == Path("system") and name in WHOLE) or path == Path(__file__):
            continue
        words = name.split("_")
        modules = [PACKAGE / place / f"{'_'.join(words[:end])}.py" for end in range(1, len(words) + 1)]
        assert any(module.is_file() for module in modules), f"{path}: no module of this name in mmsent/{place}"
    assert {path.stem for path in TESTS.glob("system/test_*.py")} >= {f"test_{name}" for name in WHOLE}


PARAMETERS, LINES = 8, 80  # at most, of a function


def functions(name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's parameters but self and cls; none of a command, whose parameters are its options."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    kinds = {ast.unparse(one.annotation) for one in given if one.annotation is not None}
    if {"Workspace", "Encoding"} & kinds or any("typer." in kind for kind in kinds):
        return 0
    return sum(one.arg not in ("self", "cls") for one in given)


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_short(name: str) -> None:
    for node in functions(name):
        called = f"{name}.{node.name}"
        lines = (node.end_lineno or 0) - node.lineno + 1
        assert lines <= LINES, f"{called} has {lines} lines"
        count = parameters(node)
        assert count <= PARAMETERS, f"{called} takes {count} parameters"


@pytest.mark.parametrize("code", ["import mmsent", "import mmsent.cli.app", "import mmsent.cli.main"])
def test_light_imports_load_no_torch(code: str) -> None:
    heavy = "[m for m in ('torch', 'numpy', 'h5py', 'sklearn', 'timm', 'open_clip', 'pandas') if m in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
