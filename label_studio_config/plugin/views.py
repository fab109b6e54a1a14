"""Views that replace Label Studio's where those would go outside the installation."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound, JsonResponse
from io_storages.localfiles.views import localfiles_data

from label_studio_config.home import HomeError
from label_studio_config.source_images import IMAGE_SUFFIXES


def image_file(request: HttpRequest) -> HttpResponse:
    """An image under the images root: no other file, and no symbolic link that leads outside.

    Label Studio's own view, which follows, checks log-in, storage and project; the project checks
    the organisation (`project_access`).
    """
    try:
        path = settings.PLANKTRAIT_HOME.resolve_image(request.GET.get("d", ""))
    except HomeError:
        return HttpResponseNotFound()
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return HttpResponseNotFound()
    return localfiles_data(request)


def no_tips(request: HttpRequest) -> HttpResponse:
    """Label Studio fetches its tips from GitHub at each visit; we stay at home."""
    return JsonResponse({})


def thumbnail(request: HttpRequest) -> HttpResponse:
    """The picture beside our templates in the create-project dialog."""
    svg = (Path(__file__).parent / "plankton.svg").read_bytes()
    return HttpResponse(svg, content_type="image/svg+xml")
