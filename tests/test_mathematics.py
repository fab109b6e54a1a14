"""What must hold for every input: laws of losses, votes, calibration and priors (hypothesis)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from label_studio_config.controls import Control
from label_studio_config.votes import vote_shares
from ml_backend.calibrate import calibrated, correct_prior, prior_shift
from ml_backend.fine_tune import voted_loss
from ml_backend.fit_heads import head_loss
from ml_backend.head import Head
from ml_backend.priors import prior_by_bbse, prior_by_em

LAWS = settings(max_examples=50, deadline=None, database=None)
KINDS = ("one of", "ordinal", "any of")
DIFFERENT = 0.02


@st.composite
def logits(draw: st.DrawFn, k: int, n: int = 4, most: float = 40.0) -> np.ndarray:
    """Outputs (n, k), some of them far beyond what a softmax can tell from 0 and 1."""
    numbers = st.floats(-most, most, allow_nan=False)
    return np.array(draw(st.lists(numbers, min_size=n * k, max_size=n * k))).reshape(n, k)


@st.composite
def distributions(draw: st.DrawFn, k: int, n: int = 4, floor: float = 0.0) -> np.ndarray:
    """Shares (n, k) whose rows sum to 1; zeros among them unless there is a floor."""
    counts = st.lists(st.integers(0, 5), min_size=k, max_size=k).filter(any)
    rows = np.array([draw(counts) for _ in range(n)], dtype=float) + floor
    return rows / rows.sum(axis=1, keepdims=True)


@st.composite
def shares_of(draw: st.DrawFn, kind: str, k: int) -> np.ndarray:
    """Shares of votes: independent for "any of"."""
    if kind != "any of":
        return draw(distributions(k))
    values = draw(st.lists(st.sampled_from([0, 0.25, 0.5, 1]), min_size=4 * k, max_size=4 * k))
    return np.array(values, dtype=float).reshape(4, k)


def head(kind: str, k: int) -> Head:
    labels = tuple(f"label {i}" for i in range(k))
    return Head("x", "any of" if kind == "any of" else "one of", labels, kind == "ordinal")


def loss(kind: str, outputs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Loss of each image, in double precision."""
    found = head_loss(head(kind, shares.shape[1]), torch.tensor(outputs), torch.tensor(shares))
    return found.numpy()


def least_loss(kind: str, shares: np.ndarray) -> np.ndarray:
    """What remains where prediction and votes are the same: their entropy."""

    def entropy(p: np.ndarray) -> np.ndarray:
        return -p * np.log(np.where(p > 0, p, 1.0))

    if kind == "one of":
        return entropy(shares).sum(axis=1)
    if kind == "any of":
        return (entropy(shares) + entropy(1 - shares)).sum(axis=1)
    below = np.clip(shares.cumsum(axis=1)[:, :-1], 0, 1)
    return (entropy(below) + entropy(1 - below)).mean(axis=1)


def probabilities(kind: str, outputs: np.ndarray) -> np.ndarray:
    return calibrated("any of" if kind == "any of" else "one of", outputs, 1.0)


# Losses


@LAWS
@given(st.data(), st.sampled_from(KINDS), st.integers(2, 6))
def test_the_excess_is_never_negative_and_zero_only_for_equality(data, kind, k) -> None:
    outputs, shares = data.draw(logits(k)), data.draw(shares_of(kind, k))
    excess = loss(kind, outputs, shares) - least_loss(kind, shares)
    assert np.isfinite(excess).all()
    assert (excess > -1e-9).all()
    differs = np.abs(probabilities(kind, outputs) - shares).max(axis=1) > DIFFERENT
    assert (excess[differs] > 1e-6).all()


@LAWS
@given(st.data(), st.sampled_from(KINDS), st.integers(2, 6))
def test_at_equality_the_excess_is_zero_and_so_is_the_gradient(data, kind, k) -> None:
    outputs = data.draw(logits(k, most=5.0))
    shares = probabilities(kind, outputs)
    np.testing.assert_allclose(loss(kind, outputs, shares), least_loss(kind, shares), atol=1e-9)
    moving = torch.tensor(outputs, requires_grad=True)
    head_loss(head(kind, k), moving, torch.tensor(shares)).sum().backward()
    assert moving.grad is not None
    np.testing.assert_allclose(moving.grad.numpy(), 0, atol=1e-9)


@LAWS
@given(st.data(), st.integers(2, 6))
def test_between_two_labels_the_ordinal_loss_is_the_other(data, k) -> None:
    outputs, shares = data.draw(logits(2)), data.draw(distributions(2))
    np.testing.assert_allclose(
        loss("ordinal", outputs, shares), loss("one of", outputs, shares), atol=1e-9
    )


@LAWS
@given(st.integers(3, 7), st.floats(0.5, 8))
def test_ordinal_mistakes_cost_more_the_further_they_are(k, sure) -> None:
    shares = np.eye(k)[[0] * k]
    costs = loss("ordinal", np.eye(k) * sure, shares)
    assert (np.diff(costs) > 0).all()


@LAWS
@given(st.data(), st.sampled_from(KINDS), st.integers(2, 5))
def test_images_without_votes_leave_no_gradient(data, kind, k) -> None:
    """Nor do they change the loss, whatever stands in their shares."""
    outputs, shares = data.draw(logits(k)), data.draw(shares_of(kind, k))
    known = torch.tensor(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
    assume(known.any() and not known.all())
    smoothing = data.draw(st.sampled_from([0.0, 0.1]))
    losses, moving = [], torch.tensor(outputs, requires_grad=True)
    for others in (data.draw(shares_of(kind, k)), np.full_like(shares, np.nan)):
        mixed = torch.where(known[:, None], torch.tensor(shares), torch.tensor(others))
        losses.append(voted_loss(head(kind, k), moving, mixed, known, smoothing))
    assert losses[0].item() == losses[1].item()
    sum(losses).backward()
    assert moving.grad is not None
    assert (moving.grad[~known] == 0).all()
    alone = head_loss(head(kind, k), moving[known], torch.tensor(shares)[known]).mean()
    assert smoothing or losses[0].item() == alone.item()


# Permuting labels


@LAWS
@given(st.data(), st.sampled_from(("one of", "any of")), st.integers(2, 6))
def test_losses_do_not_know_the_order_of_labels(data, kind, k) -> None:
    outputs, shares = data.draw(logits(k)), data.draw(shares_of(kind, k))
    order = data.draw(st.permutations(range(k)))
    np.testing.assert_allclose(
        loss(kind, outputs[:, order], shares[:, order]), loss(kind, outputs, shares), atol=1e-9
    )


@LAWS
@given(st.data(), st.integers(2, 6))
def test_a_scale_may_be_read_from_either_end(data, k) -> None:
    outputs, shares = data.draw(logits(k)), data.draw(distributions(k))
    np.testing.assert_allclose(
        loss("ordinal", outputs[:, ::-1].copy(), shares[:, ::-1].copy()),
        loss("ordinal", outputs, shares),
        atol=1e-9,
    )


@st.composite
def votes(draw: st.DrawFn, labels: tuple[str, ...], kind: str) -> pd.DataFrame:
    """Votes of up to four persons on three images, also twice on one, also not assessable."""
    said = st.lists(st.sampled_from(labels), min_size=kind == "one of", max_size=2, unique=True)
    vote = st.tuples(st.sampled_from("xyz"), st.sampled_from("ABCD"), said, st.booleans())
    rows = draw(st.lists(vote, max_size=14))
    table = pd.DataFrame(rows, columns=["image_id", "annotator", "labels", "assessable"])
    said_of = pd.Series([tuple(x) for x in table["labels"]], index=table.index, dtype=object)
    return table.assign(control="x", labels=said_of, assessable=table["assessable"].astype(bool))


@LAWS
@given(st.data(), st.sampled_from(("one of", "any of")), st.integers(2, 5))
def test_shares_sum_to_one_permute_and_do_not_know_the_unit_of_weights(data, kind, k) -> None:
    labels = tuple("abcde"[:k])
    table = data.draw(votes(labels, kind))
    weights = data.draw(st.dictionaries(st.sampled_from("ABCD"), st.sampled_from([0, 0.5, 2])))
    control = Control("x", "Choices", "image", kind, labels)
    shares, n_votes = vote_shares(control, table, ["x", "y", "z"], weights)
    known = n_votes > 0
    assert ((shares >= 0) & (shares <= 1 + 1e-6)).all()
    assert (shares[~known] == 0).all()
    if kind == "one of":
        np.testing.assert_allclose(shares[known].sum(axis=1), 1, rtol=1e-5)
    order = data.draw(st.permutations(range(k)))
    other = replace(control, labels=tuple(labels[i] for i in order))
    np.testing.assert_allclose(
        vote_shares(other, table, ["x", "y", "z"], weights)[0], shares[:, order], atol=1e-6
    )
    tripled = {who: 3 * weights.get(who, 1) for who in "ABCD"}
    again, n_again = vote_shares(control, table, ["x", "y", "z"], tripled)
    np.testing.assert_allclose(again, shares, atol=1e-6)
    np.testing.assert_array_equal(n_again, n_votes)
    persons = table[table["assessable"]].groupby("image_id")["annotator"].nunique()
    most = persons.reindex(["x", "y", "z"]).fillna(0).to_numpy()
    assert (n_votes <= most).all()


# Probabilities and priors


@LAWS
@given(st.data(), st.integers(2, 6), st.floats(0.1, 10))
def test_probabilities_sum_to_one(data, k, temperature) -> None:
    outputs, bias = data.draw(logits(k)), data.draw(logits(k, n=1))[0]
    trained, deployed = data.draw(distributions(k, n=2))
    served = replace(
        head("one of", k),
        temperature=temperature,
        bias=tuple(bias),
        trained_prior=tuple(trained),
        deployed_prior=tuple(deployed),
    )
    values = served.answer(outputs)
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-9)


@LAWS
@given(st.data(), st.sampled_from(("one of", "any of")), st.integers(2, 6))
def test_correction_by_equal_priors_changes_nothing(data, kind, k) -> None:
    values = probabilities(kind, data.draw(logits(k, most=15.0)))
    (prior,) = data.draw(distributions(k, n=1))
    np.testing.assert_allclose(prior_shift(kind, prior, prior), 0, atol=1e-9)
    np.testing.assert_allclose(correct_prior(kind, values, prior, prior), values, atol=1e-9)


@LAWS
@given(st.data(), st.sampled_from(("one of", "any of")), st.integers(2, 6))
def test_correction_permutes_with_the_labels(data, kind, k) -> None:
    values = probabilities(kind, data.draw(logits(k, most=15.0)))
    trained, deployed = data.draw(distributions(k, n=2))
    order = data.draw(st.permutations(range(k)))
    np.testing.assert_allclose(
        correct_prior(kind, values[:, order], trained[order], deployed[order]),
        correct_prior(kind, values, trained, deployed)[:, order],
        atol=1e-9,
    )


@LAWS
@given(st.data(), st.integers(2, 5))
def test_em_gives_a_distribution_that_permutes_and_explains_itself(data, k) -> None:
    values = probabilities("one of", data.draw(logits(k, n=12, most=4.0)))
    (prior,) = data.draw(distributions(k, n=1, floor=1.0))
    found = prior_by_em(values, prior, 1e-9, 5000)
    assert abs(found.sum() - 1) < 1e-9
    assert (found >= 0).all()
    moved = correct_prior("one of", values, prior, np.maximum(found, 1e-12))
    np.testing.assert_allclose(moved.mean(axis=0), found, atol=1e-3)
    order = data.draw(st.permutations(range(k)))
    np.testing.assert_allclose(
        prior_by_em(values[:, order], prior[order], 1e-9, 5000), found[order], atol=1e-6
    )


@LAWS
@given(st.data(), st.integers(2, 5))
def test_bbse_undoes_a_confusion_that_is_known(data, k) -> None:
    (there,) = data.draw(distributions(k, n=1))
    confusion = np.eye(k) * k + data.draw(distributions(k, n=k))  # mostly right
    recalled = confusion / confusion.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prior_by_bbse(confusion, there @ recalled), there, atol=1e-8)
    order = np.array(data.draw(st.permutations(range(k))))
    permuted = prior_by_bbse(confusion[np.ix_(order, order)], (there @ recalled)[order])
    np.testing.assert_allclose(permuted, there[order], atol=1e-8)
