"""The addresses of the page "Data": the page itself, and its API below a project's."""

from django.urls import path

from label_studio_config.plugin import data_views, pages

_data = "api/planktrait/projects/<int:pk>/data"
_kept = f"{_data}/<str:kind>/<str:kept>"

urlpatterns = [
    path("planktrait/projects/<int:pk>/data", pages.data),
    path(_data, data_views.Data.as_view()),
    path(f"{_data}/jobs", data_views.DataJobs.as_view()),
    path(f"{_data}/start/<str:work>", data_views.Start.as_view()),
    path(f"{_data}/folders", data_views.Folders.as_view()),
    path(f"{_data}/tables", data_views.Tables.as_view()),
    path(f"{_data}/counts/<str:kept>/table", data_views.CountsTable.as_view()),
    path(_kept, data_views.Kept.as_view()),
    path(f"{_kept}/files/<str:name>", data_views.KeptFile.as_view()),
]
