"""Scores of how unlike the images that taught it an image is, as the literature has them.

Each takes what is known of the training images, and n images to score; larger is more novel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

NEIGHBOURS = 5


@dataclass(frozen=True)
class Described:
    """What a model makes of n images.

    Attributes
    ----------
    features : array (n, d)
        Of the encoder.
    inputs : array (n, d + 5)
        Of the heads: features and size, standardised.
    logits : array (n, k)
    probabilities : array (n, k)
        Calibrated, at the deployment prior.
    shown : array (n,)
        The novelty that the product shows.
    """

    features: np.ndarray
    inputs: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    shown: np.ndarray


@dataclass(frozen=True)
class Taught:
    """The training images.

    Attributes
    ----------
    images : Described
    labels : int array (n,)
    weight, bias : arrays (k, d + 5), (k,)
        Of the head: logits = weight @ inputs + bias.
    """

    images: Described
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    @cached_property
    def gaussians(self) -> dict[str, Gaussians]:
        """By space, fitted once."""
        spaces = {"features": self.images.features, "inputs": self.images.inputs}
        return {name: Gaussians(rows, self.labels) for name, rows in spaces.items()}

    @cached_property
    def indifferent(self) -> np.ndarray:
        """Inputs (d + 5,) for which the head has no opinion."""
        return -np.linalg.pinv(self.weight) @ self.bias

    @cached_property
    def main_directions(self) -> np.ndarray:
        """Half of the dimensions, those in which training images differ most, (m, d + 5)."""
        points = self.images.inputs - self.indifferent
        both_ways = np.concatenate([points, -points])  # so that the mean is the origin
        return PCA(min(points.shape) // 2).fit(both_ways).components_


class Gaussians:
    """One mean a label with a shared covariance, and one Gaussian for all images together.

    Covariances are shrunk (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4): there may be
    fewer images than features.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.means = np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
        place = np.searchsorted(np.unique(labels), labels)
        within = LedoitWolf(assume_centered=True).fit(rows - self.means[place])
        self.whitening = np.linalg.cholesky(within.precision_)
        self.overall = LedoitWolf().fit(rows)

    def to_nearest_label(self, rows: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest label's mean, (n,)."""
        whitened = euclidean_distances(rows @ self.whitening, self.means @ self.whitening)
        return (whitened**2).min(axis=1)

    def to_all(self, rows: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to all training images together, (n,)."""
        return self.overall.mahalanobis(rows)


def cosine(
    taught: Taught,
    images: Described,
    space: str = "features",
    k: int = NEIGHBOURS,
    mean: bool = True,
    centred: bool = False,
) -> np.ndarray:
    """Cosine distance to the k nearest training images, (n,): their mean, or that of the k-th.

    Sun et al. 2022 (arXiv 2204.06507) take the k-th. With `centred`, directions are seen from the
    mean of the training images.
    """
    known, rows = getattr(taught.images, space), getattr(images, space)
    origin = known.mean(axis=0) if centred else 0.0
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(normalize(known - origin))
    distances = search.kneighbors(normalize(rows - origin))[0] ** 2 / 2  # of unit vectors
    return distances.mean(axis=1) if mean else distances[:, -1]


def mahalanobis(taught: Taught, images: Described, space: str = "features") -> np.ndarray:
    """Distance to the nearest label (Lee et al. 2018, arXiv 1807.03888), (n,)."""
    return taught.gaussians[space].to_nearest_label(getattr(images, space))


def mahalanobis_to_all(taught: Taught, images: Described) -> np.ndarray:
    """Distance to all training images together: it needs no labels, (n,)."""
    return taught.gaussians["features"].to_all(images.features)


def relative_mahalanobis(taught: Taught, images: Described, space: str = "features") -> np.ndarray:
    """How much nearer all images are than any label (Ren et al. 2021, arXiv 2106.09022), (n,)."""
    gaussians, rows = taught.gaussians[space], getattr(images, space)
    return gaussians.to_nearest_label(rows) - gaussians.to_all(rows)


def energy(_: Taught, images: Described) -> np.ndarray:
    """Liu et al. 2020 (arXiv 2010.03759), (n,)."""
    return -logsumexp(images.logits, axis=1)


def max_logit(_: Taught, images: Described) -> np.ndarray:
    """Hendrycks et al. 2022 (arXiv 1911.11132), (n,)."""
    return -images.logits.max(axis=1)


def max_probability(_: Taught, images: Described) -> np.ndarray:
    """Hendrycks & Gimpel 2017 (arXiv 1610.02136), (n,)."""
    return -images.probabilities.max(axis=1)


def residual(taught: Taught, images: Described) -> np.ndarray:
    """What of an image lies outside the main directions of the training images, (n,)."""
    return _outside(taught, images.inputs)


def virtual_logit(taught: Taught, images: Described) -> np.ndarray:
    """ViM (Wang et al. 2022, arXiv 2203.10807): the residual, against the energy, (n,)."""
    scale = taught.images.logits.max(axis=1).mean() / _outside(taught, taught.images.inputs).mean()
    return scale * residual(taught, images) + energy(taught, images)


def _outside(taught: Taught, rows: np.ndarray) -> np.ndarray:
    """Norm of what half of the dimensions leave out, seen from where the head is indifferent."""
    points = rows - taught.indifferent
    return np.linalg.norm(
        points - points @ taught.main_directions.T @ taught.main_directions, axis=1
    )


SCORES: dict[str, Callable[[Taught, Described], np.ndarray]] = {
    "as shown": lambda _, images: images.shown,
    "cosine, mean of 5": cosine,
    "cosine, nearest": partial(cosine, k=1),
    "cosine, 10th": partial(cosine, k=10, mean=False),
    "cosine, centred": partial(cosine, centred=True),
    "cosine, with size": partial(cosine, space="inputs"),
    "Mahalanobis": mahalanobis,
    "Mahalanobis, with size": partial(mahalanobis, space="inputs"),
    "Mahalanobis to all": mahalanobis_to_all,
    "relative Mahalanobis": relative_mahalanobis,
    "relative Mahalanobis, with size": partial(relative_mahalanobis, space="inputs"),
    "energy": energy,
    "max logit": max_logit,
    "max probability": max_probability,
    "residual": residual,
    "ViM": virtual_logit,
}
