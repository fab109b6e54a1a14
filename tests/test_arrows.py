"""Arrows between packages only point down; floor 1 and the exports know no torch."""

import ast
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


def test_the_check_can_fail():
    assert forbidden("from ml_backend.train import train", "simclr") == ["ml_backend.train.train"]
    assert forbidden("def f():\n    import torch", "export_tools") == ["torch"]
    assert forbidden("from label_studio_config import schema", "simclr")
    assert not forbidden("from label_studio_config.manifest import Manifest", "simclr")


def test_the_plugin_is_no_exception():
    plugin = ROOT / "label_studio_config" / "plugin"
    assert any(plugin.rglob("*.py"))
