"""The addresses of the gallery's API, below a project's."""

from django.urls import path

from label_studio_config.plugin import (
    agreement_now,
    bulk_views,
    gallery_sprites,
    gallery_views,
    judgements_views,
)

_project = "api/planktrait/projects/<int:pk>"

urlpatterns = [
    path(f"{_project}/agreement", agreement_now.AgreementNow.as_view()),
    path(f"{_project}/gallery", gallery_views.Gallery.as_view()),
    path(f"{_project}/gallery/index", gallery_views.GalleryIndex.as_view()),
    path(f"{_project}/gallery/labels", gallery_views.GalleryLabels.as_view()),
    path(f"{_project}/gallery/page", gallery_views.GalleryPage.as_view()),
    path(f"{_project}/gallery/sprite", gallery_sprites.GallerySprite.as_view()),
    path(f"{_project}/gallery/sprite-map", gallery_sprites.GallerySpriteMap.as_view()),
    path(f"{_project}/judgements", judgements_views.Judgements.as_view()),
    path(f"{_project}/judgements/undo", judgements_views.UndoByKey.as_view()),
    path(f"{_project}/judgements/undo-order", bulk_views.UndoOrder.as_view()),
    path(f"{_project}/orders", bulk_views.Orders.as_view()),
    path(f"{_project}/judgements/<int:batch>/undo", judgements_views.Undo.as_view()),
]
