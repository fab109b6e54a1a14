"""Annotations and predictions to files."""

from export_tools.coco import sizes_from_files
from export_tools.export import FORMATS, ExportReport, SkippedTask, export_tasks
from export_tools.project_export import export_project
from export_tools.saved_export import ExportError, read_export

__all__ = [
    "FORMATS",
    "ExportError",
    "ExportReport",
    "SkippedTask",
    "export_project",
    "export_tasks",
    "read_export",
    "sizes_from_files",
]
