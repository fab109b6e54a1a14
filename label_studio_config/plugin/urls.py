"""Our addresses, in front of Label Studio's."""

from core.urls import urlpatterns as label_studio_urls
from django.urls import path

from label_studio_config.plugin import (
    api_views,
    cluster_views,
    data_urls,
    features,
    gallery_urls,
    map_colours,
    model_views,
    next_views,
    pages,
    second_opinion_views,
    views,
)

_project = "api/planktrait/projects/<int:pk>"

urlpatterns = [
    path("data/local-files/", views.image_file),
    path("heidi-tips/", views.no_tips),
    path("planktrait/plankton.svg", views.thumbnail),
    path("planktrait/projects/<int:pk>/gallery", pages.gallery),
    path("planktrait/projects/<int:pk>/model", pages.model),
    path("planktrait/static/<str:name>", pages.static_file),
    path("planktrait/static/<str:version>/<str:name>", pages.static_file),
    path("api/planktrait/users", api_views.Users.as_view()),
    path(f"{_project}/images-folder", api_views.ImagesFolder.as_view()),
    path(f"{_project}/images", api_views.Images.as_view()),
    path(f"{_project}/tasks", api_views.Tasks.as_view()),
    path(f"{_project}/model-version", api_views.ModelVersion.as_view()),
    # After a 404 Label Studio tries the address with a slash, and takes any with "version/" in it
    # for its own version page: a project that does not exist would be answered 200.
    path(f"{_project}/model-version/", api_views.ModelVersion.as_view()),
    path(f"{_project}/suggestions", api_views.Suggestions.as_view()),
    path(f"{_project}/next", next_views.NextTasks.as_view()),
    path(f"{_project}/label-order", next_views.Order.as_view()),
    path(f"{_project}/jobs", model_views.Jobs.as_view()),
    path(f"{_project}/second-opinion", second_opinion_views.SecondOpinion.as_view()),
    path(f"{_project}/model", model_views.Model.as_view()),
    path(f"{_project}/model/versions/<str:version>/report", model_views.Report.as_view()),
    path(f"{_project}/model/versions/<str:version>/promote", model_views.Promote.as_view()),
    path(f"{_project}/model/jobs/<str:job>/log", model_views.JobLog.as_view()),
    path(f"{_project}/model/jobs/<str:job>/cancel", model_views.CancelJob.as_view()),
    path(f"{_project}/model/start/<str:work>", model_views.Start.as_view()),
    *gallery_urls.urlpatterns,
    *data_urls.urlpatterns,
    path(f"{_project}/neighbours", features.Neighbours.as_view()),
    path(f"{_project}/clusters", cluster_views.Clusters.as_view()),
    path(f"{_project}/clusters/outliers/tasks", cluster_views.ClusterTasks.as_view()),
    path(f"{_project}/clusters/<int:number>/tasks", cluster_views.ClusterTasks.as_view()),
    path(f"{_project}/map", features.Map.as_view()),
    path(f"{_project}/map/state", features.MapState.as_view()),
    path(f"{_project}/map/colours", map_colours.MapColours.as_view()),
    *label_studio_urls,
]
