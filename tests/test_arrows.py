"""Arrows between packages only point down, and between modules never in a circle.

Floor 1 and the exports know no torch.
"""

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("label_studio_config", "hpc_jobs", "simclr", "export_tools", "ml_backend")
TORCH = {"torch", "torchvision", "timm", "lightly", "lightning", "torchmetrics"}
ALLOWED = {
    "label_studio_config": set(),
    "hpc_jobs": set(),
    "simclr": {"label_studio_config.manifest", "label_studio_config.imported_later", "hpc_jobs"},
    "export_tools": {"label_studio_config"},
    "ml_backend": {"label_studio_config", "hpc_jobs", "simclr", "export_tools"},
}
NO_TORCH = ("label_studio_config", "hpc_jobs", "export_tools")


def imports_of(source: str, package: str) -> set[str]:
    """Every module that the code names in an import, wherever it stands; relative ones resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package)
    return found


def forbidden(source: str, package: str) -> list[str]:
    wrong = []
    for name in sorted(imports_of(source, package)):
        top = name.split(".")[0]
        if top == "planktrait" or (package in NO_TORCH and top in TORCH):
            wrong.append(name)
        elif top in PACKAGES and top != package:
            allowed = ALLOWED[package]
            if not any(f"{name}.".startswith(f"{one}.") for one in allowed):
                wrong.append(name)
    return wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_down(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := forbidden(path.read_text(), package))
    }
    assert not wrong


def modules(root: Path) -> dict[str, str]:
    """The source of every module of the packages below a folder, by its dotted name."""
    found = {}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path.read_text()
    return found


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules that take something from each other all round, wherever the imports stand."""
    # What a module takes from its package is another module of it, which is named too.
    arrows = {
        name: {
            own
            for imported in imports_of(source, name)
            for own in (imported, imported.rpartition(".")[0])
            if own in sources and own not in {name, name.rpartition(".")[0]}
        }
        for name, source in sources.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circles():
    sources = modules(ROOT)
    assert {"hpc_jobs.runner", "ml_backend.train", "label_studio_config.plugin.push"} <= set(
        sources
    )
    assert circle(sources) == []


def test_the_check_of_circles_can_fail():
    late = {"a.x": "from a.y import f", "a.y": "def f():\n    from a import x"}
    assert set(circle(late)) == {"a.x", "a.y"}
    assert circle(late | {"a.y": "from a.z import f"}) == []


def test_the_check_can_fail():
    assert forbidden("from ml_backend.train import train", "simclr") == ["ml_backend.train.train"]
    assert forbidden("def f():\n    import torch", "export_tools") == ["torch"]
    assert forbidden("from label_studio_config import schema", "simclr")
    assert not forbidden("from label_studio_config.manifest import Manifest", "simclr")


def test_the_plugin_is_no_exception():
    plugin = ROOT / "label_studio_config" / "plugin"
    assert any(plugin.rglob("*.py"))
