"""What the page "Data" sends to the backend, checked at the door."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from ml_backend.wire import ProjectId, _Message

Name = Annotated[str, Field(max_length=1000)]


class SetUpRequest(_Message):
    """POST /data/set-up. Without `config` the project keeps its own."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    config: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)] | None = None
    sampling: Literal["sequential", "uniform", "uncertainty"] | None = None


class ImportRequest(_Message):
    """POST /data/look and /data/import.

    `folder` is relative to the images root, `table` to the folder; `uploaded` names a table that
    was uploaded for the project.
    """

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    folder: Name
    table: Name | None = None
    uploaded: Name | None = None
    blind_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    pixel_size_um: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_table(self) -> ImportRequest:
        if self.table is not None and self.uploaded is not None:
            raise ValueError("give table or uploaded, not both")
        return self


class ExportRequest(_Message):
    """POST /data/export. Only `tasks`, where they are given."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    format: Literal["csv", "json", "coco", "parquet"]
    tasks: Annotated[list[int], Field(min_length=1)] | None = None


class CountRequest(_Message):
    """POST /data/count. `by` is "depth", "day", or a column of the images."""

    model_config = ConfigDict(extra="forbid")
    project: ProjectId
    by: Annotated[str, Field(min_length=1, max_length=200)] = "sample_id"
    depth_bin_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    control: Name | None = None
