"""The loss of copies: two views of a picture attract each other, and everything else is pushed away.

Per row of a batch of views, S being cosines and t the temperature:

contrast   -log(e_p / (e_p + sum of e_k + 1e-6)), e = exp(S / t), p the other view of the picture, k all that is of
           another picture: InfoNCE with the other positives left out of the denominator, as SSCD has it (Pizzi et al.,
           CVPR 2022, section 3.2; for small batches: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022).
entropy    -log(d), d = sqrt(max(2 - 2 max of S_k, 1e-6)), the distance to the nearest that is of another picture: the
           differential entropy of the embeddings after Kozachenko and Leonenko, but for constants. It spreads them over
           the whole sphere (Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019).

Others are those of the batch and, so that a small batch has enough of them, embeddings of past steps, which move
nothing themselves (Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020). Pictures are told apart by
their ids: a past view of the same one is no other. What has the id of padding is neither.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from simimg.input import PADDING_ID

__all__ = ["PairTerms", "pair_terms"]

_EPSILON = 1e-6
_NONE = -1e9  # a logit that adds nothing; minus infinity would make gradients that are no numbers


class PairTerms(NamedTuple):
    """Float32 `[num_rows]` each; of padding, any numbers.

    Attributes:
        contrast: see above.
        entropy: see above.
        positive: cosine to the other view of the picture.
        nearest: the largest cosine to any other picture's; -1 where there is none.
    """

    contrast: tf.Tensor
    entropy: tf.Tensor
    positive: tf.Tensor
    nearest: tf.Tensor


def pair_terms(
    embeddings: tf.Tensor,
    ids: tf.Tensor,
    past: tf.Tensor | None = None,
    past_ids: tf.Tensor | None = None,
    *,
    temperature: float,
) -> PairTerms:
    """Returns the terms of each row.

    Args:
        embeddings: float32 `[num_rows, dim]` of L2 norm 1: rows 2 i and 2 i + 1 are the views of one picture.
        ids: int64 `[num_rows]`, of the pictures.
        past: float32 `[num_past, dim]`, of earlier steps.
        past_ids: int64 `[num_past]`.
        temperature: above 0.
    """
    rows = tf.range(tf.shape(embeddings)[0])
    positive = tf.reduce_sum(embeddings * tf.gather(embeddings, tf.bitwise.bitwise_xor(rows, 1)), axis=1)
    others, other_ids = embeddings, ids
    if past is not None and past_ids is not None:
        others, other_ids = tf.concat([embeddings, past], 0), tf.concat([ids, past_ids], 0)
    similarities = tf.matmul(embeddings, others, transpose_b=True)
    is_other = (ids[:, None] != other_ids[None, :]) & (other_ids != PADDING_ID)[None, :]
    own = positive[:, None] / temperature
    logits = tf.concat(
        [own, tf.fill(tf.shape(own), math.log(_EPSILON)), tf.where(is_other, similarities / temperature, _NONE)], axis=1
    )
    nearest = tf.reduce_max(tf.where(is_other, similarities, -1.0), axis=1)
    return PairTerms(
        contrast=tf.reduce_logsumexp(logits, axis=1) - own[:, 0],
        entropy=-0.5 * tf.math.log(tf.maximum(2 - 2 * nearest, _EPSILON)),
        positive=positive,
        nearest=nearest,
    )
