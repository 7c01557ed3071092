"""The house: a module imports only from lower levels, and rooms on one level do not import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyaction"
LEVELS = {
    "_native": 0,
    "ops": 0,
    "flow": 1,
    "video": 1,
    "models": 1,
    "losses": 1,
    "data": 2,
    "methods": 3,
    "engine": 4,
    "report": 4,
    "cli": 5,
}


def room_of(module: str) -> str | None:
    """'pyaction.flow.files' -> 'flow'; None outside the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pyaction" and len(parts) > 1 else None


def imported_modules(tree: ast.AST, package: str) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{package} uses a relative import; write the whole name"
            # `from pyaction import flow` imports the room flow.
            whole = node.module == "pyaction"
            modules.update(f"pyaction.{alias.name}" for alias in node.names) if whole else modules.add(
                node.module or ""
            )
    return modules


def arrows() -> list[tuple[str, str, Path]]:
    """(room, imported room, file) for every import between rooms."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        if room == "__init__":  # the front door, which opens every room
            continue
        for module in imported_modules(ast.parse(path.read_text()), str(relative)):
            other = room_of(module)
            if other not in (None, room, "_C"):
                found.append((room, other, relative))
    return found


def test_every_room_has_a_level() -> None:
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__", "recipes"} <= set(LEVELS)


def test_imports_go_down() -> None:
    all_arrows = arrows()
    assert ("engine", "video", Path("engine/video_results.py")) in all_arrows  # the walk sees arrows at all
    for room, other, file in all_arrows:
        if (room, other) == ("ops", "_native"):
            continue
        assert LEVELS[other] < LEVELS[room], f"{file}: {room} (level {LEVELS[room]}) imports {other}"


@pytest.mark.parametrize(
    ("line", "module"),
    [("import pyaction.video", "pyaction.video"), ("from pyaction import video as v", "pyaction.video"),
     ("from pyaction.video.reader import open", "pyaction.video.reader")],
)  # fmt: skip
def test_the_walk_sees(line: str, module: str) -> None:
    assert imported_modules(ast.parse(f"def f():\n    {line}"), "x") == {module}
