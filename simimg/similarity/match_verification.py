"""Verifies whether two images are copies of one photo, how much of them agrees, and what was done to the query.

1. Keypoints show how the query lies in the candidate, if it does (`simimg.similarity.keypoints`). Blurred or plain
   images have too few of them: these are aligned as a whole, in the best of the eight orientations of an image, which
   is refined as long as the correlation grows (Evangelidis and Psarakis, "Parametric Image Alignment Using Enhanced
   Correlation Coefficient Maximization", PAMI 2008). Any two smooth images correlate in one of eight orientations, so
   structure has to agree, too. Images without structure are copies only if their pixels are nearly equal.
2. Both images are warped into one frame and compared block by block. A logo that two photos share aligns them, but
   everything else disagrees, so it verifies nothing.
3. The reasons describe the edit: geometry is read from the map, color and detail from the frame.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from simimg.determinism import ordered_sum, plain_opencv
from simimg.similarity.affine import (
    compose,
    determinant,
    inverse,
    inverse_place,
)
from simimg.similarity.common_frame import block_agreement, block_of_pixels, common_part, frame, structure_agrees
from simimg.similarity.copy_reasons import Reasons, add_color_and_detail, add_compression, add_geometry, look
from simimg.similarity.differences import Differences
from simimg.similarity.drawing_evidence import have_detail, is_other_noise, is_plain, is_upright
from simimg.similarity.fingerprint import Fingerprint
from simimg.similarity.keypoints import Matches, align, match, num_agreeing
from simimg.similarity.position_match import QUARTER_TURN, align_whole, between_sizes, match_position
from simimg.similarity.registration import Registration

MIN_AGREEMENT = 0.45
"""Least agreement of the frame if many keypoints match, see `block_agreement`. Images half covered reach it."""

_SURE = 0.97  # similarity from which the alignment by keypoints of the thumbnails is not corrected
_FEW_INLIERS, _AGREEMENT_OF_FEW = 24, 0.8
"""With fewer inliers, more agreement is needed: two photos of the same model of watch or piano had up to 19 keypoints
in common, and an agreement of up to 0.75."""

_FEWEST_AGREEING, _FEW_POINTS = 3, 8
"""Matches of coarse keypoints that agree on where the query lies, without which fine ones are not compared, unless an
image has too few of them. Of 261 pairs of edited copies that only fine ones verify, 249 have as many; of 828 pairs of
other pictures, 28."""

SAME_BYTES = "the same bytes"
SAME_FILE = "the same file under another name"
SAME_PIXELS = "the same pixels"

HARMLESS = (SAME_BYTES, SAME_PIXELS, "resized", "JPEG")
"""Beginnings of those reasons that concern the file rather than the image; all others show an edited copy."""

_WHOLE_AGREEMENT = 0.8
# Gray levels by which compression changes an image, on average and anywhere: JPEGs of quality 30 of smooth images had
# at most 2.7 and 5.9, and different pencil strokes on one page at least 21 somewhere.
_EQUAL_MEAN, _EQUAL_ANYWHERE = 4.0, 8.0
_SIMPLER, _MAYBE_SAME = 0.001, 12.0  # similarity that a simpler alignment may lose; levels by which thumbnails differ


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """Shows that a query is a copy of a candidate.

    Attributes:
        similarity: 0.5..1, higher is closer. Half of it is given; the other half grows with the agreement of the common
            part and with its share of both images.
        reasons: what was done to the query if the candidate is the original; empty if no edit is visible.
        reversed_reasons: what was done to the candidate if the query is the original.
        num_inliers: keypoints that agree on the alignment; 0 if the images were aligned as a whole.
        place: where the query lies in the candidate: the affine map `(a, b, c, d, e, f)` from the unit square of the
            query to that of the candidate; `(x, y)` goes to `(a x + b y + c, d x + e y + f)`.
        edits: the kinds of these reasons, see `simimg.similarity.edits`.
        differs: what differs at full size; None if that was not compared.
        reversed_edits: the kinds of the reversed reasons.
    """

    similarity: float
    reasons: tuple[str, ...]
    num_inliers: int
    place: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    edits: frozenset[str] = frozenset()
    differs: Differences | None = None
    reversed_reasons: tuple[str, ...] = ()
    reversed_edits: frozenset[str] = frozenset()

    def reversed(self) -> Verification:
        """Return the verification that the candidate is a copy of the query."""
        place = np.reshape(self.place, (2, 3))
        return dataclasses.replace(
            self,
            reasons=self.reversed_reasons,
            reversed_reasons=self.reasons,
            place=inverse_place(self.place),
            edits=self.reversed_edits,
            reversed_edits=self.edits,
            differs=None if self.differs is None else self.differs.reversed(place),
        )

    @property
    def text(self) -> str:
        """The reasons as text for people."""
        return ", ".join(self.reasons) or "looks the same"


@plain_opencv()
def verify(query: Fingerprint, candidate: Fingerprint, *, thorough: bool = True) -> Verification | None:
    """Return the verification that the query is a copy of the candidate, or None if nothing shows that it is one.

    Without `thorough`, keypoints of the thumbnails have to be enough, so that no file is decoded again. Of 560 edited
    copies of 40 photos (`simimg.similarity.evaluation.image_edits`), 552 are verified so, and 557 with the others.

    The smaller image is looked for in the larger one, whichever is the query, so that both ways give the same.
    """
    if _is_swapped(query, candidate):
        found = verify(candidate, query, thorough=thorough)
        return None if found is None else found.reversed()
    return _simplest(query, candidate, _verify(query, candidate, thorough=thorough))


def _is_swapped(query: Fingerprint, candidate: Fingerprint) -> bool:
    ours, theirs = ((one.size[0] * one.size[1], one.size, one.thumbnail.shape) for one in (query, candidate))
    # The content decides between two images of one size.
    return ours > theirs or (ours == theirs and query.thumbnail.tobytes() > candidate.thumbnail.tobytes())


def _verify(query: Fingerprint, candidate: Fingerprint, *, thorough: bool) -> Verification | None:
    verified = _verify_in_position(query, candidate)
    if verified is not None:
        return verified
    ours, theirs = query.details.coarse, candidate.details.coarse
    matches = match(ours, theirs)
    verified = _verify_aligned(query, candidate, matches)
    if verified is not None and verified.num_inliers >= _FEW_INLIERS:
        return verified if verified.similarity >= _SURE else _corrected(query, candidate, verified)
    if thorough and (
        min(len(ours.points), len(theirs.points)) < _FEW_POINTS or num_agreeing(matches) >= _FEWEST_AGREEING
    ):
        ours, theirs = query.keypoints, candidate.keypoints
        again = _verify_aligned(query, candidate, match(ours, theirs))
        verified = max(filter(None, (verified, again)), key=lambda one: one.similarity, default=None)
    if verified is not None:
        return verified
    whole = align_whole(query, candidate, min(len(ours.points), len(theirs.points)))
    verified = None if whole is None else _compare(query, candidate, *whole, 0, _WHOLE_AGREEMENT)
    return _nearly_equal(query, candidate) if verified is None else verified


def _simplest(query: Fingerprint, candidate: Fingerprint, found: Verification | None) -> Verification | None:
    """Return the verification of the whole images, upright, if it agrees as well as the one that was found.

    A symmetric flag is like itself in several positions, and few keypoints align a plain drawing a little wrong.
    """
    if found is None or found.place == tuple(_WHOLE.ravel().tolist()):
        return found
    (width, height), (other_width, other_height) = query.size, candidate.size
    if not 0.98 < width * other_height / (height * other_width) < 1.02:
        return found
    ours, theirs = query.thumbnail, candidate.thumbnail
    if ours.shape != theirs.shape:
        ours = cv2.resize(ours, (theirs.shape[1], theirs.shape[0]), interpolation=cv2.INTER_AREA)
    if int(cv2.absdiff(ours, theirs).sum(dtype=np.int64)) > _MAYBE_SAME * theirs.size:
        return found
    whole = _compare(query, candidate, _WHOLE, False, max(1, found.num_inliers), MIN_AGREEMENT)
    if whole is None or whole.similarity < found.similarity - _SIMPLER:
        return found
    return dataclasses.replace(whole, num_inliers=found.num_inliers)


@plain_opencv()
def verify_placed(query: Fingerprint, candidate: Fingerprint, place: np.ndarray) -> Verification | None:
    """Do the same for images whose alignment is known, see `Verification.place`; it needs no keypoints."""
    if _are_equal(query, candidate):
        return _EQUAL
    matrix, mirrored = _mirrored_back(place)
    return _compare(query, candidate, matrix, mirrored, _FEW_INLIERS, MIN_AGREEMENT)


def geometric_edits(query: Fingerprint, candidate: Fingerprint, place: np.ndarray) -> list[str]:
    """Return the reasons that the alignment alone shows: turns, crops, and changes of size."""
    matrix, mirrored = _mirrored_back(place)
    common = common_part(matrix)
    reasons = Reasons()
    if common is not None:
        add_geometry(reasons, query.size, candidate.size, matrix, mirrored, *common[1:])
    return reasons.texts


def _mirrored_back(place: np.ndarray) -> tuple[np.ndarray, bool]:
    mirrored = determinant(place) < 0
    return compose(place, _MIRRORED) if mirrored else place, mirrored


def _are_equal(query: Fingerprint, candidate: Fingerprint) -> bool:
    """Whether all pixels of two upright images are equal; different thumbnails need not be checked."""
    ours, theirs = query.thumbnail, candidate.thumbnail
    return (
        query.size == candidate.size
        and ours.shape == theirs.shape
        and float(np.abs(ours.astype(np.int16) - theirs).mean()) < _EQUAL_MEAN
        and query.pixels_sha256 == candidate.pixels_sha256
    )


def _verify_in_position(query: Fingerprint, candidate: Fingerprint) -> Verification | None:
    """Return the verification of images whose thumbnails agree closely in one of eight positions, without keypoints."""
    if _are_equal(query, candidate):
        return _EQUAL
    found = match_position(query, candidate)
    if found is None:
        return None
    turns, mirrored, num_blocks = found
    place = compose(_WHOLE, *[QUARTER_TURN] * turns)
    verified = _compare(query, candidate, place, mirrored, num_blocks, MIN_AGREEMENT)
    return None if verified is None else dataclasses.replace(verified, num_inliers=0)


def _verify_aligned(
    query: Fingerprint, candidate: Fingerprint, matches: tuple[Matches, Matches]
) -> Verification | None:
    """Return the verification of images that are aligned by some of their keypoints."""
    found = align(matches)
    if found is None:
        return None
    matrix = between_sizes(found.matrix, matches[0].query.size, matches[0].candidate.size)
    least = MIN_AGREEMENT if found.num_inliers >= _FEW_INLIERS else _AGREEMENT_OF_FEW
    return _compare(query, candidate, matrix, found.mirrored, found.num_inliers, least)


def _corrected(query: Fingerprint, candidate: Fingerprint, found: Verification) -> Verification:
    """Return a verification whose alignment is corrected by the pixels of the thumbnails, if that is better.

    Of 360 pairs of edited photos this gave the similarity that fine keypoints give, or more (at most 0.0014 less), in a
    twentieth of the time.
    """
    try:
        registration = Registration(query.thumbnail, candidate.thumbnail, np.reshape(found.place, (2, 3)))
    except ValueError:  # the thumbnails have too little in common
        return found
    registration.correct()
    matrix, mirrored = _mirrored_back(registration.place)
    again = _compare(query, candidate, matrix, mirrored, found.num_inliers, MIN_AGREEMENT)
    return found if again is None or again.similarity < found.similarity else again


def _compare(
    query: Fingerprint, candidate: Fingerprint, matrix: np.ndarray, mirrored: bool, num_inliers: int, least: float
) -> Verification | None:
    """Return the verification under a map from the unit square of the (mirrored) query to that of the candidate."""
    common = common_part(matrix)
    if common is None:
        return None
    polygon, candidate_share, query_share = common
    ours, theirs, inside = frame(
        query.thumbnail[:, ::-1] if mirrored else query.thumbnail, candidate.thumbnail, matrix, polygon
    )
    agreement, disagreeing, agreeing = block_agreement(ours, theirs, inside)
    if agreement < least or not (num_inliers or structure_agrees(ours, theirs, inside)):
        return None
    upright = is_upright(matrix, mirrored, query.size, candidate.size)
    if (
        not upright
        and is_plain(query, candidate)
        and not have_detail(ours, theirs, inside, block_of_pixels(*inside.shape))
    ):
        return None
    overlap = candidate_share * query_share
    similarity = 0.5 + 0.5 * agreement * (0.8 + 0.2 * overlap)
    of_query = compose(matrix, _MIRRORED) if mirrored else matrix
    back = _mirrored_back(inverse(of_query))[0]
    reasons, undone = Reasons(), Reasons()
    add_geometry(reasons, query.size, candidate.size, matrix, mirrored, candidate_share, query_share)
    add_geometry(undone, candidate.size, query.size, back, mirrored, query_share, candidate_share)
    looks = look(ours, agreeing), look(theirs, agreeing)
    add_color_and_detail(reasons, *looks, disagreeing)
    add_color_and_detail(undone, *looks[::-1], disagreeing)
    add_compression(reasons, query, candidate)
    add_compression(undone, candidate, query)
    return Verification(
        min(1.0, similarity),
        tuple(reasons.texts),
        num_inliers,
        tuple(of_query.ravel().tolist()),
        frozenset(reasons.edits),
        reversed_reasons=tuple(undone.texts),
        reversed_edits=frozenset(undone.edits),
    )


_EQUAL = Verification(1.0, (SAME_PIXELS,), 0, reversed_reasons=(SAME_PIXELS,))

# Maps of the unit square: none, and a mirror image.
_WHOLE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_MIRRORED = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def _nearly_equal(query: Fingerprint, candidate: Fingerprint) -> Verification | None:
    """Return the verification that two upright images differ by nothing but size and compression."""
    ours, theirs = query.thumbnail.astype(np.float32), candidate.thumbnail.astype(np.float32)
    shares = [width / height for width, height in (query.size, candidate.size)]
    if not 0.98 < shares[0] / shares[1] < 1.02:
        return None
    if ours.shape != theirs.shape:
        ours = cv2.resize(ours, (theirs.shape[1], theirs.shape[0]), interpolation=cv2.INTER_AREA)
    difference = np.abs(cv2.GaussianBlur(ours - theirs, (0, 0), 1.0))
    if float(difference.max()) > _EQUAL_ANYWHERE:
        return None
    mean = float(ordered_sum(difference.ravel().astype(np.float64))) / difference.size
    if mean > _EQUAL_MEAN or is_other_noise(ours, theirs):
        return None
    reasons, undone = Reasons(), Reasons()
    for found, one, other in ((reasons, query, candidate), (undone, candidate, query)):
        add_geometry(found, one.size, other.size, _WHOLE, False, 1.0, 1.0)
        add_compression(found, one, other)
    similarity = 1 - mean / (10 * _EQUAL_MEAN)
    return Verification(
        similarity,
        tuple(reasons.texts),
        0,
        edits=frozenset(reasons.edits),
        reversed_reasons=tuple(undone.texts),
        reversed_edits=frozenset(undone.edits),
    )
