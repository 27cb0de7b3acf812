"""explain(): pairing, sides, targets, what the result says, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import isthmus
from conftest import EXAMPLES, INTERPOLATES, picture
from isthmus.encoders.processing import covering_part, seen_part
from isthmus.errors import InputError, ModelError, OptionError
from isthmus.explanation import Explanation

FAST = {"layer": 10, "steps": 2}


def test_one_pair_gives_one_explanation(mini: Any, dog: Path) -> None:
    one = isthmus.explain(mini, dog, "A dog is tied to a fire hydrant.")
    assert isinstance(one, Explanation)
    assert one.caption == "A dog is tied to a fire hydrant."
    assert one.source == str(dog)
    assert one.image.scores.shape == (7, 7)
    assert one.image.size == (426, 640)
    assert one.picture.shape == (640, 426, 3)
    assert [word.text for word in one.text.words][-3:] == ["fire", "hydrant", "."]
    for word in one.text.words:
        assert one.caption[word.start : word.end] == word.text
        assert word.score == pytest.approx(sum(one.text.tokens[i].score for i in word.tokens), abs=1e-12)
    assert [s.name for s in one.image.special] == ["CLS"]
    assert [s.name for s in one.text.special] == ["BOS", "EOS"]
    assert one.image.completeness.open == pytest.approx(one.similarity, abs=1e-5)
    assert one.text.completeness.open == pytest.approx(one.similarity, abs=1e-5)
    total = one.image.scores.sum(dtype=float) + one.image.special[0].score
    assert one.image.completeness.total == pytest.approx(total, abs=1e-6)
    assert one.image.target == "cosine with 'A dog is tied to a fire hydrant.'"
    assert one.text.target == "cosine with the picture"
    assert one.probability is None


def test_similarity_is_the_models_own(mini: Any, dog: Path) -> None:
    inputs, _, _ = mini.processing.pictures([isthmus.encoders.pictures.open_picture(dog)])
    text, _, _ = mini.processing.texts(["a dog", "a boat"], truncate=False)
    with torch.no_grad():
        out = mini.model(**inputs, **text)
    cosines = (out.image_embeds @ out.text_embeds.T)[0]
    found = isthmus.explain(mini, dog, ["a dog", "a boat"], **FAST)
    np.testing.assert_allclose([one.similarity for one in found], cosines, atol=1e-5)
    np.testing.assert_allclose([one.probability for one in found], out.logits_per_image.softmax(-1)[0], atol=1e-5)


def test_pairing(mini: Any) -> None:
    a, b = picture(0), picture(1)

    def captions(images: Any, texts: Any, **options: Any) -> list[tuple[str, float]]:
        found = isthmus.explain(mini, images, texts, **FAST, **options)
        return [(one.caption, round(one.similarity, 5)) for one in found]

    every = captions([a, b], ["x", "y"], pairing="all")
    assert [text for text, _ in every] == ["x", "y", "x", "y"]
    assert captions([a, b], ["x", "y"]) == [every[0], every[3]]
    assert captions(a, ["x", "y"]) == every[:2]
    assert captions([a, b], "y") == [every[1], every[3]]
    assert captions([a], ["x"]) == [every[0]]


def test_probabilities_are_over_the_texts_of_each_picture(mini: Any) -> None:
    found = isthmus.explain(mini, [picture(0), picture(1)], ["x", "y", "z"], pairing="all", batch_size=2, **FAST)
    for start in (0, 3):
        assert sum(one.probability for one in found[start : start + 3]) == pytest.approx(1.0)


def test_one_side_alone(mini: Any, dog: Path) -> None:
    both = isthmus.explain(mini, dog, "a dog", **FAST)
    image = isthmus.explain(mini, dog, "a dog", sides="image", **FAST)
    text = isthmus.explain(mini, dog, "a dog", sides=["text"], **FAST)
    assert image.text is None
    assert text.image is None
    assert image.image == both.image
    assert text.text == both.text


def test_targets_stand_in_for_a_partner(mini: Any, dog: Path) -> None:
    alone = isthmus.explain(mini, dog, target=isthmus.Contrast(for_=["a dog"], against=["a cat"]), **FAST)
    paired = isthmus.explain(mini, dog, "a dog", against=["a cat"], **FAST)
    np.testing.assert_allclose(alone.image.scores, paired.image.scores, atol=1e-6)
    assert alone.text is None
    assert alone.similarity is None
    assert alone.caption == ""
    words = isthmus.explain(mini, texts="a dog", target=isthmus.Contrast(for_=[dog], against=[picture()]), **FAST)
    other = isthmus.explain(mini, dog, "a dog", against=[picture()], **FAST)
    assert words.image is None
    np.testing.assert_allclose([w.score for w in words.text.words], [w.score for w in other.text.words], atol=1e-6)
    np.testing.assert_allclose(other.image.scores, isthmus.explain(mini, dog, "a dog", **FAST).image.scores, atol=1e-6)


def test_any_direction_explains_both_sides(mini: Any, dog: Path) -> None:
    vector = torch.zeros(192)
    vector[3] = 2.0
    one = isthmus.explain(mini, dog, "a dog", target=isthmus.Direction(vector, "axis 3"), **FAST)
    assert one.image.target == one.text.target == "dot product with axis 3"
    inputs, _, _ = mini.processing.pictures([isthmus.encoders.pictures.open_picture(dog)])
    embedding = mini.image.embed(inputs)[0]
    assert one.image.completeness.open == pytest.approx(float(2 * embedding[3] / embedding.norm()), abs=1e-5)


def test_options_may_differ_by_side(mini: Any, dog: Path) -> None:
    one = isthmus.explain(mini, dog, "a dog", layer={"image": 3, "text": -2}, steps=2, closed="floor")
    assert one.image.options["layer"] == 3
    assert one.text.options["layer"] == 11
    assert one.provenance.options == {"layer": {"image": 3, "text": -2}, "steps": 2, "closed": "floor"}


def test_provenance_is_complete(mini: Any, dog: Path) -> None:
    p = isthmus.explain(mini, dog, "a dog", steps=4, layer=9).provenance
    assert (p.model, p.method, p.preset, p.device, p.dtype) == ("mini", "nib", None, "cpu", "float32")
    assert len(p.revision) == 12
    assert set(p.versions) == {"isthmus", "python", "torch", "transformers"}
    assert p.seconds > 0
    # two embeddings; on each side the split, 4 nodes, and the closed score
    assert p.passes == {"forward": 2 + 2 * (1 + 4 + 1), "backward": 8}


def test_pictures_of_every_kind_give_one_map(mini: Any, tmp_path: Path) -> None:
    image = picture(0, (64, 64))
    image.save(tmp_path / "a.png")
    pixels = np.asarray(image)
    first = isthmus.explain(mini, image, "a dog", **FAST).image
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), pixels, pixels / 255.0, torch.tensor(pixels)):
        np.testing.assert_array_equal(isthmus.explain(mini, source, "a dog", **FAST).image.scores, first.scores)


def test_prepared_images_are_used_as_they_are(mini: Any, dog: Path) -> None:
    inputs, _, _ = mini.processing.pictures([isthmus.encoders.pictures.open_picture(dog)])
    one = isthmus.explain(mini, isthmus.PreparedImage(inputs["pixel_values"][0]), "a dog", **FAST)
    other = isthmus.explain(mini, dog, "a dog", **FAST)
    np.testing.assert_array_equal(one.image.scores, other.image.scores)
    assert one.picture.shape == (224, 224, 3)
    crop = np.asarray(
        Image.open(dog).convert("RGB").resize((224, 336), Image.Resampling.BICUBIC).crop((0, 56, 224, 280))
    )
    assert np.abs(one.picture.astype(int) - crop).mean() < 2


@pytest.mark.parametrize("size", [(640, 426), (426, 640), (224, 224), (1000, 300), (301, 77), (50, 60)])
def test_the_crop_is_what_the_processor_shows_the_model(mini: Any, size: tuple[int, int]) -> None:
    """The picture's red and green are its coordinates; the model's input tells where it was cut."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    ramp = np.stack([x, y, 0 * x], -1)
    inputs, (frame,), _ = mini.processing.pictures([isthmus.encoders.pictures.open_picture(ramp)])
    shown = np.asarray(mini.processing.shown(isthmus.PreparedImage(inputs["pixel_values"][0])).image) / 255.0
    crop = frame.crop
    assert shown[112, 1:-1, 0].mean() == pytest.approx((crop.left + crop.right) / 2 / size[0], abs=0.01)
    assert shown[1:-1, 112, 1].mean() == pytest.approx((crop.top + crop.bottom) / 2 / size[1], abs=0.01)
    assert shown[112, 4, 0] == pytest.approx((crop.left + (crop.right - crop.left) * 4.5 / 224) / size[0], abs=0.02)
    assert shown[219, 112, 1] == pytest.approx((crop.top + (crop.bottom - crop.top) * 219.5 / 224) / size[1], abs=0.02)


def test_crops_of_other_processors() -> None:
    class Square:
        do_resize, do_center_crop, size = True, False, {"height": 384, "width": 384}

    class Padded:
        do_resize, do_center_crop = False, True
        crop_size: ClassVar = {"height": 100, "width": 100}

    whole = seen_part(Square(), (640, 480))
    assert (whole.left, whole.top, whole.right, whole.bottom) == (0, 0, 640, 480)
    padded = seen_part(Padded(), (60, 200))
    assert (padded.left, padded.top, padded.right, padded.bottom) == (-20, 50, 80, 150)
    cover = covering_part((100, 50), (32, 32))
    assert (cover.left, cover.top, cover.right, cover.bottom) == (25, 0, 75, 50)


@pytest.mark.skipif(not INTERPOLATES, reason="this transformers cannot interpolate CLIP's position embedding")
def test_another_input_size_interpolates_positions(dog: Path) -> None:
    model = isthmus.load("mini", image_size=(160, 288), device="cpu")
    one = isthmus.explain(model, dog, "a dog", **FAST)
    assert one.image.scores.shape == (5, 9)
    assert one.image.input_size == (160, 288)
    assert one.image.crop.right - one.image.crop.left == pytest.approx(426)
    assert one.image.crop.bottom - one.image.crop.top == pytest.approx(426 * 160 / 288)
    with pytest.raises(OptionError, match="multiples of the model's patch, 32"):
        isthmus.load("mini", image_size=100)


def test_models_load_in_every_way(tmp_path: Path, dog: Path) -> None:
    from isthmus.encoders.transformers import MINI

    mini = isthmus.load("mini", device="cpu")
    assert "demonstration" in mini.notice
    expected = isthmus.explain(mini, dog, "a dog", **FAST).image.scores
    for model in (isthmus.load(MINI, device="cpu"), isthmus.load(str(MINI)), isthmus.load(mini)):
        np.testing.assert_array_equal(isthmus.explain(model, dog, "a dog", **FAST).image.scores, expected)
        assert model.revision == mini.revision
    processor = {
        "image_processor": mini.processing.of_pictures._image_processor,
        "tokenizer": mini.processing.of_texts._tokenizer,
    }
    given = isthmus.load(mini.model, processor=processor)
    np.testing.assert_array_equal(isthmus.explain(given, dog, "a dog", **FAST).image.scores, expected)
    assert given.model is mini.model
    assert given.notice == ""
    half = isthmus.load("mini", dtype="bfloat16", device="cpu")
    assert half.dtype == torch.bfloat16
    assert isthmus.load("mini", attention="eager").model.config._attn_implementation == "eager"
    np.testing.assert_array_equal(isthmus.explain("mini", dog, "a dog", **FAST).image.scores, expected)


def test_models_that_cannot_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"No model 'nobody/nothing'.*check the name and the network"):
        isthmus.load("nobody/nothing")
    (tmp_path / "mpt-empty").mkdir()  # transformers guesses the kind of a model from such a name
    with pytest.raises(ModelError, match="does not hold a whole transformers model"):
        isthmus.load(tmp_path / "mpt-empty")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"'bert' model, which transformers .* knows no dual encoder of"):
        isthmus.load(tmp_path / "bert")
    with pytest.raises(
        ModelError, match="Linear is no dual encoder that Isthmus can read: it has no get_image_features"
    ):
        isthmus.load(torch.nn.Linear(2, 2), processor={})
    with pytest.raises(OptionError, match="needs its processor"):
        isthmus.load(torch.nn.Linear(2, 2))


def test_without_network_one_sentence_comes_at_once() -> None:
    """The hub's own retries take half a minute and print a dozen lines."""
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "isthmus", "explain", str(EXAMPLES / "dog.jpg"), "a", "--model", "nobody/nothing"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("isthmus: No model 'nobody/nothing'")


def test_damaged_checkpoints_are_refused(tmp_path: Path, mini: Any) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from isthmus.encoders.transformers import MINI

    shutil.copytree(MINI, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="does not hold a whole"):
        isthmus.load(tmp_path / "cut")
    shutil.copytree(MINI, tmp_path / "lacking")
    tensors = load_file(MINI / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, tmp_path / "lacking" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 of the weights of CLIPModel"):
        isthmus.load(tmp_path / "lacking")


def test_processors_without_offsets_are_refused(mini: Any) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(OptionError, match="fast tokenizer"):
        isthmus.load(mini.model, processor={"image_processor": object(), "tokenizer": Slow()})
    with pytest.raises(OptionError, match="must have an image_processor and a tokenizer"):
        isthmus.load(mini.model, processor=object())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "warp"}, "no device 'warp'"),
        ({"device": "cuda"}, "no cuda device"),
        ({"dtype": "int8"}, "no such dtype: choose one of float32"),
    ],
)
def test_devices_and_types_that_are_not_there(options: dict[str, str], message: str) -> None:
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(OptionError, match=message):
        isthmus.load("mini", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [], "texts": "a"}, "nothing to explain"),
        ({"images": None, "texts": None}, "give a picture and a text"),
        ({"images": [0, 1], "texts": ["a", "b", "c"]}, "do not pair off"),
        ({"texts": None}, "There is no text: give one, or a target"),
        ({"texts": ""}, "text is empty"),
        ({"texts": "dog " * 50}, "52 tokens.*truncate=True"),
        ({"pairing": "some"}, "pairing must be"),
        ({"sides": "left"}, "sides must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"method": "magic"}, "no method 'magic': choose one of .*nib"),
        ({"preset": "mine"}, "no preset 'mine': it has paper"),
        ({"step": 3}, "no option 'step': it has"),
        ({"layer": 13}, "layer=13 is out of range"),
        ({"against": ["a", 3]}, "not int"),
        ({"target": isthmus.Direction(torch.ones(5))}, "5 dimensions, but the joint space has 192"),
        ({"target": isthmus.Direction(torch.ones(5, 2))}, r"shape \(D,\)"),
        ({"target": isthmus.Contrast(["a"]), "against": ["b"]}, "a target or against, not both"),
        ({"target": isthmus.Contrast(["a"]), "sides": "text"}, "which sides leaves out"),
        ({"texts": None, "target": isthmus.Contrast([Path("a.png")])}, "explains the text, which is not given"),
        ({"images": isthmus.PreparedImage(torch.zeros(3, 50, 50))}, "multiples of 32"),
        ({"images": isthmus.PreparedImage(torch.zeros(224, 224))}, "shape \\(3, height, width\\)"),
        ({"images": isthmus.PreparedImage(torch.full((3, 224, 224), torch.nan))}, "NaN or infinite"),
    ],
)
def test_what_makes_no_sense_is_refused(mini: Any, arguments: dict[str, Any], message: str) -> None:
    call = {"images": EXAMPLES / "dog.jpg", "texts": "a dog", **arguments}
    with pytest.raises((InputError, OptionError), match=message):
        isthmus.explain(mini, **call)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"for_": "a dog"}, "takes lists"),
        ({}, "at least one"),
        ({"for_": ["a"], "against": [Path("b.png")]}, "not both"),
        ({"for_": [3]}, "not int"),
    ],
)
def test_contrasts_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        isthmus.Contrast(**arguments)


def test_prepared_images_of_two_sizes_are_refused(mini: Any) -> None:
    images = [isthmus.PreparedImage(torch.zeros(3, s, s)) for s in (224, 256)]
    of_two, of_another = "have 2 sizes: explain pictures of one size at once", "224 x 224 pixels alone, not 256 x 256"
    with pytest.raises(InputError, match=of_two if INTERPOLATES else of_another):
        isthmus.explain(mini, images, "a dog")


def test_cut_texts_are_told_wherever_they_stand(mini: Any, dog: Path) -> None:
    long, cut = "dog " * 60, "cut from 62 to 32 tokens"
    contrast = isthmus.explain(mini, dog, target=isthmus.Contrast(for_=[long]), truncate=True, **FAST)
    assert any(cut in note for note in contrast.image.notes)
    against = isthmus.explain(mini, dog, "a cat", against=[long], truncate=True, **FAST)
    assert any(cut in note for note in against.image.notes)
    assert isthmus.explain(mini, dog, long, sides="image", truncate=True, **FAST).image.notes == (cut,)
    both = isthmus.explain(mini, dog, long, truncate=True, **FAST)
    assert (both.image.notes, both.text.notes) == ((), (cut,))
    with pytest.raises(InputError, match="62 tokens"):
        isthmus.explain(mini, dog, target=isthmus.Contrast(for_=[long]), **FAST)


def test_the_crop_is_what_the_patches_cover(make_tiny: Callable[..., Any]) -> None:
    """Seven patches of 8 pixels see 56 of the 63 that the processor passes on."""
    model = make_tiny()
    model.processing.of_pictures._image_processor.size = {"shortest_edge": 63}
    model.processing.of_pictures._image_processor.crop_size = {"height": 63, "width": 63}
    one = isthmus.explain(model, picture(0, (126, 63)), "a dog")
    crop = one.image.crop
    assert one.image.scores.shape == (7, 7)
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx((31, 0, 31 + 56, 56), abs=1)
    assert np.isnan(one.image.heatmap()[-6:]).all()


@pytest.mark.skipif(not INTERPOLATES, reason="this transformers cannot interpolate CLIP's position embedding")
def test_a_processor_that_does_not_crop_has_a_mean_state_too(make_tiny: Callable[..., Any]) -> None:
    model = make_tiny()
    model.processing.of_pictures._image_processor.do_center_crop = False
    one = isthmus.explain(model, picture(0, (120, 60)), "a dog", steps="auto")
    assert one.image.scores.shape == (7, 14)
    assert one.image.completeness.relative_delta < 0.01
    with pytest.raises(InputError, match=r"2 sizes.*batch_size=1"):
        isthmus.explain(model, [picture(0, (120, 60)), picture(1, (60, 60))], "a dog")
    both = isthmus.explain(model, [picture(0, (120, 60)), picture(1, (60, 60))], "a dog", batch_size=1)
    assert [found.image.scores.shape for found in both] == [(7, 14), (7, 7)]


def test_a_result_is_read_only_and_short_to_print(mini: Any, dog: Path) -> None:
    import copy
    import pickle

    one = isthmus.explain(mini, dog, "a dog", **FAST)
    for mapping in (one.image.options, one.text.options, one.provenance.options, one.provenance.settings):
        with pytest.raises(TypeError, match="read-only"):
            mapping["layer"] = 3
    assert repr(one).startswith("<Explanation of image and text: 'a dog', similarity 0.")
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one


def test_the_whole_call_is_on_record(mini: Any, dog: Path) -> None:
    many = [f"a thing of {n} parts" for n in range(5)]
    settings = isthmus.explain(
        mini, dog, "a dog", against=many, batch_size=7, sides="image", **FAST
    ).provenance.settings
    assert settings["against"] == tuple(many)
    assert (settings["sides"], settings["batch_size"], settings["truncate"]) == (("image",), 7, False)
    paper = isthmus.explain(mini, [dog, dog], ["a dog", "a cat"], preset="paper", **FAST)
    assert paper[0].text.target == "cosine with the mean of the batch's 2 pictures"


def test_progress_is_told(mini: Any) -> None:
    seen: list[tuple[int, int]] = []
    images = [picture(i) for i in range(5)]
    isthmus.explain(mini, images, "a dog", batch_size=2, progress=lambda a, b: seen.append((a, b)), **FAST)
    assert seen == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("text", ["a 👩‍🚀 rides a 🐎", "كلب على الشاطئ", "שלום עולם", "一只狗在海滩上"])
def test_every_script_is_explained(mini: Any, dog: Path, text: str) -> None:
    one = isthmus.explain(mini, dog, text, truncate=True, **FAST)
    assert [text[w.start : w.end] for w in one.text.words] == [w.text for w in one.text.words]
    assert all(np.isfinite(w.score) for w in one.text.words)


def test_results_survive_saving(mini: Any, dog: Path, tmp_path: Path) -> None:
    for options in (FAST, {"preset": "paper"}, {"steps": "auto", "layer": 9, "closed": "floor"}):
        one = isthmus.explain(mini, dog, "a dog", **options)
        one.save(tmp_path / "x")
        assert Explanation.load(tmp_path / "x") == one


def test_importing_is_instant_and_loads_no_torch() -> None:
    code = (
        "import time, sys; t = time.perf_counter(); import isthmus; s = time.perf_counter() - t; "
        "assert not {'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules), 'heavy'; print(s); "
        "assert set(dir(isthmus)) == set(isthmus.__all__); isthmus.errors if hasattr(isthmus, 'errors') else None"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.1


def test_public_names_are_there() -> None:
    for name in isthmus.__all__:
        assert getattr(isthmus, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = isthmus.nothing


def test_tiny_models_take_both_kinds_of_pooling(make_tiny: Callable[..., Any]) -> None:
    for eos in (2, 8191):
        one = isthmus.explain(make_tiny(eos=eos), picture(), "a dog", steps=200, rule="gauss-legendre-sinh")
        assert one.text.completeness.relative_delta < 1e-3
