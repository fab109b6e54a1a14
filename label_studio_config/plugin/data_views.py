"""A project's data without a terminal: set up, import, export and counts, each work as a job.

All under /api/planktrait/projects/<pk>/data. Whoever may see the project sees what is there and
fetches files; whoever may change it starts work and deletes. Work is the ML backend's.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from core.permissions import ViewClassPermission, all_permissions
from django.conf import settings
from django.http import FileResponse
from projects.models import Project
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from label_studio_config.folders import TABLE_SUFFIXES, FolderError, look_into
from label_studio_config.home import HomeError
from label_studio_config.kept_files import forget, kept_file, list_kept
from label_studio_config.plugin import backend, data_state
from label_studio_config.plugin.model_views import ModelView, jobs_of

KINDS = ("exports", "counts")
WORK = {
    "set-up": ("config", "sampling"),
    "look": ("folder", "table", "uploaded", "blind_share", "pixel_size_um"),
    "import": ("folder", "table", "uploaded", "blind_share", "pixel_size_um"),
    "export": ("format",),
    "count": ("by", "depth_bin_m", "control"),
}
LARGEST_TABLE_BYTES = 200 * 1024 * 1024
ROWS_SHOWN = 2000
_REFUSED = re.compile(r"^The ML backend refused \(4\d\d\): ")
_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class DataView(ModelView):
    """A view of a project's data; refusals of the backend are passed on with their words."""

    permission_required = ViewClassPermission(
        GET=all_permissions.projects_view,
        POST=all_permissions.projects_change,
        DELETE=all_permissions.projects_change,
    )

    def words(self, error: backend.BackendError) -> str:
        """Without our own ones: the person has asked for exactly this."""
        return _REFUSED.sub("", str(error))


class Data(DataView):
    """GET: what is set and what is missing, and the files that are there."""

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        return Response(
            {
                "project": {"id": project.id, "title": project.title},
                "may_change": request.user.has_perm(all_permissions.projects_change, project),
                "config": data_state.config_of(project),
                "configs": data_state.configs(),
                "backend": data_state.backend_of(project),
                "images": data_state.images_of(project),
                "counting": data_state.counting_of(project),
                **{kind: list_kept(_folder(kind, project)) for kind in KINDS},
            }
        )


class DataJobs(DataView):
    """GET: the project's jobs of this page, the newest first; quick, for a page that asks often."""

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        firsts = tuple(f"{work.split('-')[0]} " for work in WORK)
        jobs = [job for job in jobs_of(project) if str(job["key"]).startswith(firsts)]
        return Response({"jobs": jobs})


class Start(DataView):
    """POST: start one kind of work as a job."""

    def post(self, request: Request, pk: int, work: str) -> Response:
        project = self.project(request, pk)
        if work not in WORK:
            raise NotFound(f"{work!r} is none of {', '.join(WORK)}")
        if not isinstance(request.data, dict):
            raise ValidationError("expected a JSON object")
        unknown = sorted(set(request.data) - set(WORK[work]))
        if unknown:
            raise ValidationError(f"{unknown[0]}: not known here; known are {list(WORK[work])}")
        if work in ("look", "import") or (work == "set-up" and not request.data.get("config")):
            problem = data_state.config_of(project)["problem"]
            if problem:
                raise ValidationError(f"set the project up first, with another config: {problem}")
        if work == "count":
            _require_column(project, str(request.data.get("by", "sample_id")))
        answer = backend.ask("POST", f"data/{work}", json={**request.data, "project": project.id})
        return Response(answer, status=202)


class Folders(DataView):
    """GET `?path=`: what a folder below the images root holds; for who may change the project."""

    permission_required = ViewClassPermission(GET=all_permissions.projects_change)

    def get(self, request: Request, pk: int) -> Response:
        self.project(request, pk)
        try:
            root = settings.PLANKTRAIT_HOME.images_root
            return Response(look_into(root, request.query_params.get("path", "")))
        except (FolderError, HomeError) as error:
            raise ValidationError(str(error)) from error


class Tables(DataView):
    """POST multipart `table=`: keep a table of metadata for an import; `{"uploaded", "name"}`."""

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        file = request.FILES.get("table")
        if file is None:
            raise ValidationError("table: send a file, as multipart/form-data")
        suffix = Path(file.name).suffix.lower()
        if suffix not in TABLE_SUFFIXES:
            raise ValidationError(f"{file.name}: choose a file that ends in .csv, .tsv or .txt")
        if file.size > LARGEST_TABLE_BYTES:
            raise ValidationError(f"{file.name}: larger than {LARGEST_TABLE_BYTES >> 20} MiB")
        content = file.read()
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(file.name).stem).strip("-")[:60] or "table"
        name = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
        path = _folder("tables", project) / name
        temporary = path.with_name(f".{os.getpid()}.{name}")
        temporary.write_bytes(content)
        temporary.replace(path)
        return Response({"uploaded": name, "name": file.name})


class Kept(DataView):
    """DELETE: forget an export, or counts."""

    def delete(self, request: Request, pk: int, kind: str, kept: str) -> Response:
        project = self.project(request, pk)
        if kind not in KINDS or not forget(_folder(kind, project), kept):
            raise NotFound(f"project {pk} has no {kind} {kept!r}")
        return Response(status=204)


class KeptFile(DataView):
    """GET: one file of an export or of counts."""

    def get(self, request: Request, pk: int, kind: str, kept: str, name: str) -> FileResponse:
        path = _file(self.project(request, pk), kind, kept, name)
        content_type = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        response = FileResponse(
            path.open("rb"), as_attachment=True, filename=name, content_type=content_type
        )
        response["X-Content-Type-Options"] = "nosniff"
        response["Cache-Control"] = "private, no-cache"
        response["Content-Security-Policy"] = (
            "sandbox; default-src 'none'; style-src 'unsafe-inline'"
        )
        return response


class CountsTable(DataView):
    """GET: the rows of a table of counts, as many as a page can show."""

    def get(self, request: Request, pk: int, kept: str) -> Response:
        path = _file(self.project(request, pk), "counts", kept, "counts.csv")
        shown: list[dict[str, Any]] = []
        n_rows, group = 0, None
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                # Labels that were neither suggested nor are likely would hide the others.
                # One without an interval was seen by people only.
                likely = float(row["count_high95"] or row["corrected_count"])
                # Of a group without any image that is counted, its head alone is shown.
                is_head = not int(row["n_images"]) and row["group"] != group
                group = row["group"]
                if float(row["raw_count"]) or likely >= 0.5 or is_head:
                    n_rows += 1
                    if len(shown) < ROWS_SHOWN:
                        shown.append(_row(row))
        return Response({"rows": shown, "n_rows": n_rows})


def _require_column(project: Project, by: str) -> None:
    known = data_state.counting_of(project)["by"]
    if by not in known:
        raise ValidationError(
            f"the images have no {by!r} to count by; they have {', '.join(known) or 'nothing'}: "
            "import them with a table of metadata"
        )


def _row(row: dict[str, str]) -> dict[str, Any]:
    numbers = ("raw_count", "corrected_count", "count_low95", "count_high95")
    return {
        "group": row["group"],
        "label": row["label"],
        "n_images": int(row["n_images"]),
        "n_validated": int(row["n_validated"]),
        "n_shared_out": int(row.get("n_shared_out") or 0),
        "n_not_predicted": int(row.get("n_not_predicted") or 0),
        **{name: float(row[name]) if row[name] else None for name in numbers},
    }


def _folder(kind: str, project: Project) -> Path:
    folder: Path = settings.PLANKTRAIT_HOME.kept_folder(kind, project.id)
    return folder


def _file(project: Project, kind: str, kept: str, name: str) -> Path:
    path = kept_file(_folder(kind, project), kept, name) if kind in KINDS else None
    if path is None:
        raise NotFound(f"project {project.id} has no {kind} {kept!r} with a file {name!r}")
    return path
