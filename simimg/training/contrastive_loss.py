"""Training to find copies: the contrastive loss of two views per image, its gradients, and a queue of past embeddings.

Terms of the loss for each row of a batch of views, with cosines S and temperature t:

contrast   -log(e_p / (e_p + sum of e_k + 1e-6)), where e = exp(S / t), p is the other view of the image, and k are all
           views of other images. This is InfoNCE without the other positives in the denominator, as in SSCD (Pizzi et
           al., CVPR 2022, section 3.2; for small batches: Yeh et al., "Decoupled Contrastive Learning", ECCV 2022).
entropy    -log(d), d = sqrt(max(2 - 2 max of S_k, 1e-6)), the distance to the nearest view of another image: the
           differential entropy of the embeddings after Kozachenko and Leonenko, up to constants. It spreads them over
           the whole sphere (Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019).

The other images are those of the batch and, so that a small batch has enough of them, embeddings of past steps, which
get no gradient (Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020). Images are told apart by their
ids, so a past view of the same image is not another image. Rows with the padding id count as neither.

Every view is compared with the views of all replicas. A replica gets the embeddings of the others without gradients,
and computes the loss of the whole batch from them and its own. Its gradient is with respect to its own embeddings, and
is exact: the sum over the replicas equals the gradient of one replica with the whole batch. So only embeddings are
exchanged, once per step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from simimg.augment import augment
from simimg.input import PADDING_ID, Batch, Order, without_passes
from simimg.models.batch_norm import sum_over_replicas
from simimg.models.dropout import dropout_scope
from simimg.training.train_config import TrainConfig

_EPSILON = 1e-6
_NONE = -1e9  # a logit that adds nothing; minus infinity would make NaN gradients
_RAMP = 0.1  # of the steps: the entropy's weight rises from 0, or views would be driven apart before they agree


class PairTerms(NamedTuple):
    """The terms of each row, float32 `[num_rows]` each; undefined for padding.

    `positive` is the cosine to the other view of the image, and `nearest` the largest cosine to a view of another
    image, -1 if there is none.
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
        embeddings: float32 `[num_rows, dim]` of L2 norm 1; rows 2 i and 2 i + 1 are the views of one image.
        ids: int64 `[num_rows]`, of the images.
        past: float32 `[num_past, dim]`, embeddings of earlier steps.
        past_ids: int64 `[num_past]`.
        temperature: above 0.
    """
    partners = tf.reshape(tf.reverse(tf.reshape(embeddings, [-1, 2, embeddings.shape[1]]), [1]), tf.shape(embeddings))
    positive = tf.reduce_sum(embeddings * partners, axis=1)
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


@dataclasses.dataclass(frozen=True)
class EmbeddingQueue:
    """The newest embeddings, float32 `[size, dim]`, and their images' ids, int64 `[size]`; starts with padding.

    It is part of a run's state, so a resumed run has the same embeddings.
    """

    embeddings: Any
    ids: Any

    @classmethod
    def empty(cls, size: int, dim: int) -> EmbeddingQueue:
        """Returns an empty queue; call it in the scope of the strategy that trains."""
        # Every replica pushes the same values, so those of any replica can be kept.
        common = {"trainable": False, "aggregation": "only_first_replica"}
        return cls(
            keras.Variable(tf.zeros([size, dim]), dtype="float32", name="past_embeddings", **common),
            keras.Variable(
                tf.fill([size], tf.constant(PADDING_ID, tf.int64)), dtype="int64", name="past_ids", **common
            ),
        )

    @property
    def variables(self) -> list[Any]:
        """The embeddings and the ids."""
        return [self.embeddings, self.ids]

    def push(self, embeddings: tf.Tensor, ids: tf.Tensor) -> None:
        """Adds the embeddings of a step and drops as many of the oldest."""
        for variable, new in ((self.embeddings, embeddings), (self.ids, ids)):
            both = tf.concat([new, tf.convert_to_tensor(variable)], axis=0)
            variable.assign(both[: variable.shape[0]])


def pair_gradients(
    config: TrainConfig,
    order: Order,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    past: EmbeddingQueue | None,
) -> Callable[[Batch, tf.Tensor, tf.Tensor, tf.Tensor], tuple[Any, tf.Tensor]]:
    """Returns a replica's function from (batch, epoch, step, first row) to gradients and sums.

    The sums are float32 `[6]`: the loss, the number of images whose views are nearer to each other than to any other
    image, and the number of images. The other three are summed over the images: the similarity of the two views, the
    similarity to the nearest other image, and the length of the batch's mean embedding.
    """
    variables = model.trainable_variables
    num_rows = 2 * order.global_batch_size
    ramp = max(1.0, _RAMP * order.steps_per_epoch * order.num_epochs)

    def of_pixels(
        images: tf.Tensor, ids: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor, earlier: list[tf.Tensor]
    ) -> tuple[Any, ...]:
        weight = config.entropy_weight * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1) / ramp)
        scope = dropout_scope(seed=tf.stack([tf.constant(config.seed, tf.int64), step]), first_row=first_row)
        with tf.GradientTape() as tape, scope:
            mine = model(images, training=True)
            embeddings, all_ids = _gathered(mine, ids, first_row, num_rows, order.num_replicas)
            terms = pair_terms(embeddings, all_ids, *earlier, temperature=config.temperature)
            there = tf.cast(all_ids != PADDING_ID, tf.float32)
            losses = there * (terms.contrast + weight * terms.entropy)
            loss = optimizer.scale_loss(tf.reduce_sum(losses) / num_rows)
        mean = tf.einsum("r,rd->d", there, embeddings) / tf.maximum(tf.reduce_sum(there), 1.0)
        found = tf.cast(terms.positive > terms.nearest, tf.float32)
        columns = [losses, there * found, there, there * terms.positive, there * terms.nearest, there * tf.norm(mean)]
        own = tf.range(ids.shape[0], dtype=tf.int64) + tf.cast(first_row, tf.int64)  # int64: see `_twice`
        sums = tf.reduce_sum(tf.gather(tf.stack(columns, axis=1), own), axis=0) / 2  # an image has two rows
        return tape.gradient(loss, variables), sums, embeddings, all_ids

    if config.xla:
        of_pixels = tf.function(of_pixels, autograph=False, jit_compile=True)

    def gradients_of(batch: Batch, epoch: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor) -> tuple[Any, tf.Tensor]:
        ids, images = _twice(batch.id), _twice(batch.image)
        views = tf.constant([0, 1] * batch.id.shape[0], tf.int64)
        pixels = augment(config.augmentation, config.seed, epoch, ids, images, views)
        if order.mixture is not None and order.mixture.weights:  # an image can be in a batch and in the queue
            ids = without_passes(ids)
        earlier = [tf.convert_to_tensor(variable) for variable in past.variables] if past else []
        gradients, sums, embeddings, all_ids = of_pixels(pixels, ids, step, 2 * first_row, earlier)
        if past:
            past.push(tf.stop_gradient(embeddings), all_ids)
        return gradients, sums

    return gradients_of


def _twice(values: tf.Tensor) -> tf.Tensor:
    """Returns each row twice, one after the other, by operations that GPUs have kernels for.

    TensorFlow 2.21 has none that tiles or gathers uint8. It has those that compute with int32, but in the host's
    memory, and the device would wait for each; therefore indices are int64.
    """
    rows = values[:, None] if len(values.shape) == 1 else values
    return tf.reshape(tf.concat([rows, rows], axis=1), [2 * values.shape[0], *values.shape[1:]])


def _gathered(
    mine: tf.Tensor, ids: tf.Tensor, first_row: tf.Tensor, num_rows: int, num_replicas: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the embeddings and ids of all replicas in the order of the batch; only this replica's have a gradient.

    They are summed, with zeros in the rows of the other replicas. The sum is exact, has the same order on any devices,
    and works with every method that reduces gradients. Each id is three more columns of its embedding, of 22 bits each,
    which float32 holds exactly: TensorFlow splits sums of int64 on the host.
    """
    if num_replicas == 1:
        return mine, ids
    places = (tf.range(ids.shape[0], dtype=tf.int64) + tf.cast(first_row, tf.int64))[:, None]
    shifts = tf.constant([0, 22, 44], tf.int64)
    parts = tf.bitwise.right_shift(ids[:, None], shifts[None]) & ((1 << 22) - 1)
    rows = tf.concat([tf.stop_gradient(mine), tf.cast(parts, tf.float32)], axis=1)
    with tf.device("CPU:0"):  # the kernel for GPUs reads it in the host's memory
        shape = tf.constant([num_rows, mine.shape[1] + 3], tf.int64)
    summed = sum_over_replicas(tf.scatter_nd(places, rows, shape))
    embeddings, all_parts = summed[:, :-3], tf.cast(summed[:, -3:], tf.int64)
    all_ids = tf.reduce_sum(tf.bitwise.left_shift(all_parts, shifts[None]), axis=1)  # the parts share no bits
    return tf.tensor_scatter_nd_update(tf.stop_gradient(embeddings), places, mine), all_ids
