"""Directions of the joint space, in words (FALCON; Kalibhat et al., ICML 2023).

Pictures that a direction activates most are captioned with phrases; phrases that also caption pictures which look
alike but hardly activate it are struck out, since they describe what the direction is not about. The captions are the
user's phrases in place of LAION's, a unit's activation is the dot product with the unit embedding, and low means below
the mean of the direction's own activations (the published code: of all units').
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.encoders.dual import DualEncoder, PreparedImage
from isthmus.encoders.pictures import open_picture
from isthmus.errors import InputError, OptionError
from isthmus.exemplars import Bank, bank_of, nearest, phrases_of, similar, whole
from isthmus.methods.cam import gradcam
from isthmus.targets import embeddings_of

_SCALE = 100.0  # of the softmax over phrases where the model has none of its own; CLIP's
_CAPTIONS = 5  # phrases that caption a picture


@dataclass(frozen=True)
class Phrase:
    """A phrase that describes a direction.

    Attributes:
        text: the phrase.
        score: mean over the top pictures of its probability among all phrases, 0 where it is not among the five that
            caption a picture; in [0, 1].
        similarity: its mean cosine with the top pictures.
        alike: the same with the look-alikes; None where there is none.
    """

    text: str
    score: float
    similarity: float
    alike: float | None


@dataclass(frozen=True)
class Described:
    """What a direction is about.

    Attributes:
        phrases: those that describe it, best first.
        removed: phrases that were struck out because they caption the look-alikes too, best first.
        top: places in the bank and activations of the pictures that activate it most, highest first.
        alike: the same of the look-alikes, most alike first.
        sources: of the top pictures.
        threshold: the activation above which pictures were taken; None where too few reach it.
        coherence: mean cosine between the top pictures (their crops); the paper calls a direction interpretable above
            0.8. None of a single picture.
    """

    phrases: tuple[Phrase, ...]
    removed: tuple[str, ...]
    top: tuple[tuple[int, float], ...]
    alike: tuple[tuple[int, float], ...]
    sources: tuple[str, ...]
    threshold: float | None
    coherence: float | None


def describe_direction(
    model: DualEncoder,
    direction: Tensor | int,
    pictures: Any,
    phrases: Sequence[str],
    *,
    sigmas: float = 5.0,
    top: int = 10,
    similarity: float = 0.3,
    score: float = 0.1,
    count: int = 8,
    crop: bool = True,
    truncate: bool = False,
    batch_size: int = 64,
) -> Described:
    """Describe a direction of the joint space with phrases (FALCON, Kalibhat et al., ICML 2023, section 3).

    Args:
        model: a loaded model.
        direction: `(D,)` any vector of the joint space, or the index of one of its units.
        pictures: at least two, see `isthmus.exemplars.pictures_of`, or a Bank.
        phrases: what it may be about.
        sigmas: pictures count whose activation is above the mean by so many standard deviations ...
        top: ... if there are more than `top` of them; otherwise the `top` highest, but at most half of the pictures.
        similarity: look-alikes have activations below the mean, and at least this cosine with the mean of the top
            pictures, the direction itself projected out of both; at most ten count.
        score: phrases of at least this score among the look-alikes are struck out.
        count: phrases to give, at most.
        crop: cut the top pictures to the box where Grad-CAM of the direction is above 0.6 of its range.
        truncate: cut phrases that are longer than the model reads.
        batch_size: pictures at once.

    Returns:
        Phrases by descending score among the top pictures; a score is a mean probability, so the phrases given decide
        how high it can be.

    Raises:
        InputError: fewer than two pictures, no phrase, or one that cannot be used.
        OptionError: no such unit, a direction of another width or of zeros, or a number out of its range.
    """
    for name, value in (("top", top), ("count", count)):
        whole(name, value)
    for name, number in (("sigmas", sigmas), ("similarity", similarity), ("score", score)):
        if isinstance(number, bool) or not isinstance(number, Real):
            raise OptionError(f"{name} must be a number, not {number!r}.")
    said = phrases_of(phrases)
    bank = bank_of(model, pictures, batch_size=batch_size)
    if len(bank) < 2:
        raise InputError("A direction is described by pictures that differ in it: give at least two.")
    vector = _vector(direction, bank.embeddings)
    activations = similar(bank, vector)
    high, threshold = _high(activations, sigmas, top)
    alike = _look_alikes(bank.embeddings, activations, vector, high, similarity)
    texts = embeddings_of(model, said, truncate=truncate)[0].to(bank.embeddings)
    seen = _cropped(model, bank, vector, high, batch_size) if crop else bank.embeddings[high]
    scale = model.logit_scale or _SCALE
    scores = _captioned(seen, texts, scale)
    common = _captioned(bank.embeddings[alike], texts, scale) if len(alike) else torch.zeros_like(scores)
    near = (seen @ texts.T).mean(0)
    far = (bank.embeddings[alike] @ texts.T).mean(0) if len(alike) else None
    order = [i for i in nearest(scores, len(said)).tolist() if scores[i] > 0]
    kept, struck = [i for i in order if common[i] < score], [i for i in order if common[i] >= score]
    return Described(
        phrases=tuple(
            Phrase(said[i], float(scores[i]), float(near[i]), None if far is None else float(far[i]))
            for i in kept[:count]
        ),
        removed=tuple(said[i] for i in struck),
        top=tuple((i, float(activations[i])) for i in high.tolist()),
        alike=tuple((i, float(activations[i])) for i in alike.tolist()),
        sources=tuple(bank.sources[i] for i in high.tolist()),
        threshold=threshold,
        coherence=_coherence(seen),
    )


def _vector(direction: Any, embeddings: Tensor) -> Tensor:
    width = embeddings.shape[1]
    if isinstance(direction, Integral) and not isinstance(direction, bool):
        if not 0 <= int(direction) < width:
            raise OptionError(f"There is no unit {direction}: the joint space has units 0 to {width - 1}.")
        return nn.functional.one_hot(torch.tensor(int(direction)), width).to(embeddings)
    try:
        vector = torch.as_tensor(direction).detach().to(embeddings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"A direction is a vector (D,) or a unit's index, not {type(direction).__name__}.") from error
    if vector.shape != (width,) or not bool(torch.isfinite(vector).all()) or not bool(vector.any()):
        raise OptionError(f"A direction is {width} finite numbers that are not all 0, not {tuple(vector.shape)}.")
    return vector


def _high(activations: Tensor, sigmas: float, top: int) -> tuple[Tensor, float | None]:
    """Places of the pictures that activate the direction most, highest first, and the threshold if there is one."""
    wide = activations.double()
    threshold = float(wide.mean() + sigmas * wide.std(unbiased=False))
    order = nearest(activations, len(activations))
    above = int((wide > threshold).sum())
    if above > top:
        return order[:above], threshold
    return order[: min(top, len(order) // 2)], None


def _look_alikes(embeddings: Tensor, activations: Tensor, vector: Tensor, high: Tensor, similarity: float) -> Tensor:
    """Places of at most ten pictures below the mean that look like the top ones in all but the direction."""
    along = vector / vector.norm()
    rest = embeddings - (embeddings @ along)[:, None] * along
    middle = rest[high].mean(0)
    cosines = nn.functional.cosine_similarity(rest, middle[None], dim=-1)
    low = activations < activations.mean()
    low[high] = False
    order = nearest(torch.where(low & (cosines >= similarity), cosines, -torch.inf), 10)
    return order[(low & (cosines >= similarity))[order]]


def _captioned(pictures: Tensor, texts: Tensor, scale: float) -> Tensor:
    """`(M,)` mean over pictures of the phrases' probabilities, each picture's five best alone."""
    probability = (scale * pictures @ texts.T).double().softmax(-1)
    best = probability.topk(min(_CAPTIONS, len(texts)), dim=-1).indices
    return (probability * torch.zeros_like(probability).scatter(-1, best, 1.0)).mean(0)


def _coherence(pictures: Tensor) -> float | None:
    if len(pictures) < 2:
        return None
    cosines = pictures @ pictures.T
    return float((cosines.sum() - cosines.diagonal().sum()) / (len(cosines) * (len(cosines) - 1)))


def _cropped(model: DualEncoder, bank: Bank, vector: Tensor, high: Tensor, batch_size: int) -> Tensor:
    """Unit embeddings `(N, D)` of the top pictures, each cut to what activates the direction and enlarged again."""
    crops = []
    with torch.inference_mode(False):
        for i in high.tolist():
            item = bank.items[i]
            picture = item if isinstance(item, PreparedImage) else open_picture(item)
            inputs, _, layouts = model.processing.pictures([picture])
            pixels = inputs[model.image.stem_input]
            if pixels.ndim != 4:
                raise OptionError("This model cuts pictures into patches of its own, and cannot crop: give crop=False.")
            found = gradcam(model.image, inputs, vector[None], layouts=layouts)
            own = found.scores[0] if found.grid else found.scores[0, list(layouts[0].patches)]
            heat = own.reshape(found.grid or layouts[0].grid or (1, 1))
            side = layouts[0].patch if found.grid is None else -(-pixels.shape[-1] // heat.shape[1])
            crops.append(PreparedImage(boxed(pixels, heat, side or 1)[0]))
    return embeddings_of(model, crops, batch_size=batch_size)[0].to(bank.embeddings)


def boxed(values: Tensor, heat: Tensor, patch: int) -> Tensor:
    """Cut pixels `(1, 3, H, W)` to the smallest box with all patches above 0.6 of the range of `(rows, columns)` heat.

    The box is enlarged to the whole grid's size; a flat heat leaves the pixels as they are.
    """
    low, high = float(heat.min()), float(heat.max())
    hot = heat >= (low + 0.6 * (high - low) if high > low else low)
    (top, bottom), (left, right) = (_ends(hot.any(1 - axis)) for axis in (0, 1))
    cut = values[..., top * patch : bottom * patch, left * patch : right * patch]
    size = (heat.shape[0] * patch, heat.shape[1] * patch)
    if cut.shape[-2:] == size:
        return cut
    return nn.functional.interpolate(cut.float(), size=size, mode="bicubic", align_corners=False).to(values.dtype)


def _ends(inside: Tensor) -> tuple[int, int]:
    places = inside.nonzero()[:, 0]
    return int(places[0]), int(places[-1]) + 1
