"""From a folder of images or an instrument's export to tasks of a project, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from label_studio_config.home import Home
from label_studio_config.manifest import KNOWN_COLUMNS, Manifest, Skipped
from label_studio_config.source_images import Report
from label_studio_config.sources import has_images_to_read, read_source, showable
from label_studio_config.task_import import (
    ImportReport,
    import_manifest,
    require_near,
    what_is_new,
)

_OF_OUR_OWN = ("image_id", "path", "blind")


@dataclass(frozen=True)
class SourceReport:
    """What an import added, or would add; what it skipped; which columns of metadata it found."""

    report: ImportReport
    skipped: list[Skipped]
    known_columns: list[str]
    other_columns: list[str]


def import_source(
    home: Home,
    project_id: int,
    source: Path | str,
    metadata: Path | str | None = None,
    *,
    pixel_size_um: float | None = None,
    blind_share: float = 0.0,
    only_look: bool = False,
    report: Report | None = None,
) -> SourceReport:
    """Put the images of a source into a project; repeating adds nothing twice.

    Parameters
    ----------
    source, metadata, pixel_size_um : as `read_source` takes them
    blind_share : as `import_manifest` takes it
    only_look : change nothing, tell what would be added
    report : told of the progress as `report(stage, done, total)`

    Raises
    ------
    ManifestError
        There is no usable image, or a table that cannot be read.
    OutsideRootError
        An image does not lie under the images root.
    ApiError
        Label Studio refuses; a repeat goes on where it stopped.
    """
    source = Path(source).expanduser()
    if has_images_to_read(source):
        require_near(home.images_root, source)
    manifest, skipped = read_source(source, metadata, pixel_size_um=pixel_size_um, report=report)
    manifest, not_shown = showable(manifest)
    if only_look:
        found = what_is_new(home, project_id, manifest, blind_share=blind_share)
    else:
        found = import_manifest(home, project_id, manifest, blind_share=blind_share, report=report)
    return SourceReport(found, skipped + not_shown, *_columns(manifest))


def _columns(manifest: Manifest) -> tuple[list[str], list[str]]:
    told = [
        str(column)
        for column in manifest.table.columns
        if column not in _OF_OUR_OWN and manifest.table[column].notna().any()
    ]
    known = [column for column in told if column in KNOWN_COLUMNS]
    return known, [column for column in told if column not in known]
