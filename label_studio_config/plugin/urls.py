"""Our addresses, in front of Label Studio's."""

from core.urls import urlpatterns as label_studio_urls
from django.urls import path

from label_studio_config.plugin import views

urlpatterns = [
    path("data/local-files/", views.image_file),
    path("heidi-tips/", views.no_tips),
    *label_studio_urls,
]
