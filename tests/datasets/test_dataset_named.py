"""The datasets with names, each layout written here in small."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, picture
from isthmus.datasets import DATASETS, BoxShape, Failure, Sample, open_dataset
from isthmus.errors import InputError, OptionError


def draw(folder: Path, *names: str, size: tuple[int, int] = (30, 20)) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed, size).save(folder / name, "PNG" if name.endswith(".png") else "JPEG")


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def split_up(items: Any) -> tuple[dict[str, Sample], dict[str, str]]:
    found = list(items)
    samples = {item.id: item for item in found if isinstance(item, Sample)}
    return samples, {item.id: item.reason for item in found if isinstance(item, Failure)}


def texts(items: Any) -> dict[str, tuple[str, ...]]:
    return {name: sample.texts for name, sample in split_up(items)[0].items()}


# Tiny-ImageNet-200


def tiny(root: Path) -> None:
    write(root / "words.txt", "n01\tgoldfish, Carassius auratus\nn02\tcrane\nn09\tnever\n")
    write(root / "wnids.txt", "n01\nn02\n")
    names = ["val_10.JPEG", "val_2.JPEG", "val_9.JPEG", "val_0.JPEG"]
    draw(root / "val" / "images", *names, size=(64, 64))
    lines = [
        "val_10.JPEG\tn01\t0\t3\t63\t63",
        "val_2.JPEG\tn01\t2\t1\t4\t1",
        "val_9.JPEG\tn01\t0\t0\t9\t9",
        "val_0.JPEG\tn02\t5\t5\t6\t6",
        "val_1.JPEG\tn02\t0\t0\t1\t1",
        "val_3.JPEG\tn02\t0\t0",
        "val_0.JPEG\tn77\t0\t0\t1\t1",
    ]
    write(root / "val" / "val_annotations.txt", "\n".join(lines) + "\n")
    draw(root / "train" / "n01" / "images", "n01_0.JPEG", size=(64, 64))
    write(root / "train" / "n01" / "n01_boxes.txt", "n01_0.JPEG\t0\t10\t63\t58\n")


def test_tiny_imagenet_as_the_archive_has_it(tmp_path: Path) -> None:
    tiny(tmp_path)
    dataset = open_dataset("tiny-imagenet-200", root=tmp_path)
    assert (dataset.name, dataset.split, dataset.streams) == ("tiny-imagenet-200", "val", False)
    assert dataset.notice
    samples, reasons = split_up(dataset)
    assert list(samples) == ["val_0.JPEG", "val_2.JPEG", "val_9.JPEG", "val_10.JPEG"]  # by number, not by letter
    assert samples["val_10.JPEG"].texts == ("a photo of a goldfish, Carassius auratus",)
    truth = samples["val_2.JPEG"].truth
    assert truth.label == "goldfish"
    assert truth.regions[0].name == "goldfish"
    mask = truth.regions[0].shape.mask((64, 64))
    assert sorted(zip(*np.nonzero(mask), strict=True)) == [(1, 2), (1, 3), (1, 4)]  # both corners are inside
    assert samples["val_10.JPEG"].truth.regions[0].shape.mask((64, 64)).sum() == 64 * 61
    assert set(reasons) == {"val_1.JPEG", "line 6", "val_0.JPEG"}
    assert "'n77'" in reasons["val_0.JPEG"]


def test_tiny_imagenet_first_of_each_class_and_first_name(tmp_path: Path) -> None:
    tiny(tmp_path / "tiny-imagenet-200")  # root may be the folder around it
    found = open_dataset("tiny-imagenet-200", root=tmp_path, per_class=2, class_names="first")
    assert texts(found) == {
        "val_0.JPEG": ("a photo of a crane",),
        "val_2.JPEG": ("a photo of a goldfish",),
        "val_9.JPEG": ("a photo of a goldfish",),
    }


def test_tiny_imagenet_train(tmp_path: Path) -> None:
    tiny(tmp_path)
    samples, _ = split_up(open_dataset("tiny-imagenet-200", root=tmp_path, split="train"))
    assert list(samples) == ["n01_0.JPEG"]
    assert samples["n01_0.JPEG"].truth.regions[0].shape == BoxShape(0, 10, 64, 59)
    with pytest.raises(InputError, match="splits val and train, not for 'test'"):
        open_dataset("tiny-imagenet-200", root=tmp_path, split="test")


# ImageNet


def test_imagenet_in_folders_by_class(tmp_path: Path) -> None:
    write(tmp_path / "LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 hen\n")
    draw(tmp_path / "val", "n01/ILSVRC2012_val_00000002.JPEG", "n01/ILSVRC2012_val_00000001.JPEG")
    draw(tmp_path / "val", "n02/ILSVRC2012_val_00000003.JPEG")
    found = open_dataset("imagenet", root=tmp_path)
    assert texts(found) == {
        "ILSVRC2012_val_00000001.JPEG": ("a photo of a tench, Tinca tinca",),
        "ILSVRC2012_val_00000002.JPEG": ("a photo of a tench, Tinca tinca",),
        "ILSVRC2012_val_00000003.JPEG": ("a photo of a hen",),
    }
    assert list(texts(open_dataset("imagenet", root=tmp_path, per_class=1))) == [
        "ILSVRC2012_val_00000001.JPEG",
        "ILSVRC2012_val_00000003.JPEG",
    ]


def test_imagenet_as_kaggle_has_it(tmp_path: Path) -> None:
    write(tmp_path / "LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 hen\n")
    solution = "ImageId,PredictionString\nval_1,n01 1 2 3 4 n01 5 5 9 9 \nval_3,n02 1 2\n"
    write(tmp_path / "LOC_val_solution.csv", solution)
    draw(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val", "val_1.JPEG", "val_2.JPEG", "val_3.JPEG")
    samples, reasons = split_up(open_dataset("imagenet", root=tmp_path))
    assert [region.shape for region in samples["val_1.JPEG"].truth.regions] == [
        BoxShape(1, 2, 4, 5),
        BoxShape(5, 5, 10, 10),
    ]
    assert samples["val_1.JPEG"].truth.label == "tench"
    assert set(reasons) == {"val_2.JPEG", "val_3.JPEG", "row 2 of the solution"}


# Flickr8k and RSICD

CAPTIONS = [f"caption {n} ." for n in range(5)]


def karpathy(names: dict[str, str]) -> dict[str, Any]:
    sentences = [{"tokens": text.split(), "raw": text} for text in CAPTIONS]
    return {"images": [{"filename": n, "split": s, "sentences": sentences} for n, s in names.items()], "dataset": "x"}


def test_flickr8k_by_karpathy(tmp_path: Path) -> None:
    data = karpathy({"a.jpg": "train", "b.jpg": "val", "c.jpg": "val", "d.jpg": "test"})
    data["images"] += [{"filename": "e.jpg", "split": "val", "sentences": []}, 5]
    write(tmp_path / "dataset_flickr8k.json", data)
    draw(tmp_path / "Flicker8k_Dataset", "a.jpg", "b.jpg", "e.jpg")
    dataset = open_dataset("flickr8k", root=tmp_path)
    assert dataset.split == "val"
    samples, reasons = split_up(dataset)
    assert {name: sample.texts for name, sample in samples.items()} == {"b.jpg": tuple(CAPTIONS)}
    assert set(reasons) == {"c.jpg", "e.jpg"}
    everything, bad = split_up(open_dataset("flickr8k", root=tmp_path, split="all"))
    assert set(everything) == {"a.jpg", "b.jpg"}
    assert set(bad) == {"c.jpg", "d.jpg", "e.jpg", "record 6"}
    with pytest.raises(InputError, match="no split 'x': choose one of test, train, val, all"):
        open_dataset("flickr8k", root=tmp_path, split="x")


def test_flickr8k_by_its_token_file(tmp_path: Path) -> None:
    lines = [f"{name}#{n}\t{text}" for name in ("a.jpg", "b.jpg", "c.jpg.1") for n, text in enumerate(CAPTIONS)]
    write(tmp_path / "Flickr8k_text" / "Flickr8k.token.txt", "\n".join([*lines, "no tab"]) + "\n")
    write(tmp_path / "Flickr8k_text" / "Flickr_8k.devImages.txt", "b.jpg\nz.jpg\n")
    write(tmp_path / "Flickr8k_text" / "Flickr_8k.trainImages.txt", "a.jpg\n")
    draw(tmp_path / "Images", "a.jpg", "b.jpg", "z.jpg")
    samples, reasons = split_up(open_dataset("flickr8k", root=tmp_path))
    assert {name: sample.texts for name, sample in samples.items()} == {"b.jpg": tuple(CAPTIONS)}
    assert "no text" in reasons["z.jpg"]  # it is listed, but nobody described it
    assert list(texts(open_dataset("flickr8k", root=tmp_path, split="train"))) == ["a.jpg"]
    assert set(split_up(open_dataset("flickr8k", root=tmp_path, split="all"))[1]) == {"c.jpg.1", "z.jpg", "line 16"}


def test_flickr8k_as_kaggle_has_it_and_in_other_json(tmp_path: Path) -> None:
    rows = "\n".join(f'{name},"{text}"' for name in ("a.jpg", "b.jpg") for text in CAPTIONS)
    write(tmp_path / "kaggle" / "captions.txt", f"image,caption\n{rows}\n")
    wanted = {"a.jpg": tuple(CAPTIONS), "b.jpg": tuple(CAPTIONS)}
    forms: list[Any] = [
        {"a.jpg": CAPTIONS, "b.jpg": CAPTIONS},
        [{"image": name, "caption": text} for name in ("a.jpg", "b.jpg") for text in CAPTIONS],
        [{"file_name": name, "captions": CAPTIONS} for name in ("a.jpg", "b.jpg")],
        {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(("a.jpg", "b.jpg"))],
            "annotations": [{"image_id": n, "caption": text} for n in (0, 1) for text in CAPTIONS],
        },
    ]
    for n, form in enumerate(forms):
        write(tmp_path / f"json{n}" / "en_val.json", form)
    for name in ("kaggle", *(f"json{n}" for n in range(len(forms)))):
        draw(tmp_path / name / "images", "a.jpg", "b.jpg")
        dataset = open_dataset("flickr8k", root=tmp_path / name)
        assert texts(dataset) == wanted
        assert dataset.split is None
        if name != "kaggle":
            assert texts(open_dataset(tmp_path / name / "en_val.json")) == wanted
        with pytest.raises(InputError, match="its records name none"):
            open_dataset("flickr8k", root=tmp_path / name, split="val")
    write(tmp_path / "en_val.json", {"images": 5})
    with pytest.raises(InputError, match="no captions of pictures in a form that is known"):
        open_dataset("flickr8k", root=tmp_path)


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(seed, (30, 20)).save(stream, "JPEG")
    return stream.getvalue()


def test_flickr8k_and_rsicd_as_hugging_face_has_them(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as writer

    for folder in ("flickr", "rsicd"):
        (tmp_path / folder / "data").mkdir(parents=True)
    numbered = {f"caption_{n}": [text] for n, text in enumerate(CAPTIONS)}
    for split in ("train", "validation"):
        pictures = [{"bytes": jpeg(0), "path": f"{split}.jpg"}]
        path = tmp_path / "flickr" / "data" / f"{split}-00000-of-00001-abc.parquet"
        writer.write_table(arrow.table({"image": pictures, **numbered}), path)
    dataset = open_dataset("flickr8k", root=tmp_path / "flickr")
    assert dataset.split == "val"
    assert texts(dataset) == {"validation.jpg": tuple(CAPTIONS)}
    named = {"filename": ["rsicd_images/airport_1.jpg"], "captions": [CAPTIONS], "image": [{"bytes": jpeg(1)}]}
    writer.write_table(arrow.table(named), tmp_path / "rsicd" / "data" / "valid-00000-of-00001.parquet")
    assert texts(open_dataset("rsicd", root=tmp_path / "rsicd")) == {"airport_1.jpg": tuple(CAPTIONS)}


def test_rsicd_by_its_json(tmp_path: Path) -> None:
    write(tmp_path / "dataset_rsicd.json", karpathy({"beach_76.jpg": "val", "port_1.jpg": "test"}))
    draw(tmp_path / "RSICD_images", "beach_76.jpg", "port_1.jpg")
    assert texts(open_dataset("rsicd", root=tmp_path)) == {"beach_76.jpg": tuple(CAPTIONS)}
    assert list(texts(open_dataset("rsicd", root=tmp_path, split="test", texts=["a port"]))) == ["port_1.jpg"]


# COCO


def coco(root: Path) -> None:
    draw(root / "val2017", "000000000001.png", "000000000002.png", "000000000004.png", size=(8, 6))
    images = [{"id": n, "file_name": f"{n:012d}.png", "width": 8, "height": 6} for n in (1, 2, 3, 4)]
    captions = [{"image_id": n, "caption": f"picture {n}"} for n in (1, 1, 2, 3)]
    write(root / "annotations" / "captions_val2017.json", {"images": images, "annotations": captions})


def test_coco_instances(tmp_path: Path) -> None:
    coco(tmp_path)
    runs = [2, 2, 4, 2, 38]  # down the columns of height 6: rows 2-3 of column 0, rows 2-3 of column 1
    crowd = {"size": [6, 8], "counts": [0, 48]}
    annotations = [
        {"image_id": 1, "category_id": 18, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [1, 2]]},
        {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": {"size": [6, 8], "counts": runs}},
        {"image_id": 1, "category_id": 1, "iscrowd": 1, "segmentation": crowd},
        {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 2, 3, 4]]},
        {"image_id": 2, "category_id": 99, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 3]]},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    write(tmp_path / "annotations" / "instances_val2017.json", {"annotations": annotations, "categories": categories})
    dataset = open_dataset("coco", root=tmp_path)
    assert dataset.split == "val2017"
    samples, reasons = split_up(dataset)
    assert samples["1"].texts == ("picture 1", "picture 1")
    dog, person = samples["1"].truth.regions  # neither the crowd nor the line that encloses nothing
    assert (dog.name, person.name) == ("dog", "person")
    assert set(zip(*np.nonzero(dog.shape.mask((8, 6))), strict=True)) == {
        (y, x) for y in (1, 2, 3) for x in (1, 2, 3, 4)
    }
    assert set(zip(*np.nonzero(person.shape.mask((8, 6))), strict=True)) == {(2, 0), (3, 0), (2, 1), (3, 1)}
    assert set(reasons) == {"2", "3", "4"}
    assert "category" in reasons["2"]
    assert "no picture" in reasons["3"]
    assert "no text" in reasons["4"]
    assert set(split_up(open_dataset("coco", root=tmp_path, split="val"))[0]) == {"1"}


def test_coco_panoptic(tmp_path: Path) -> None:
    coco(tmp_path)
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    pixels[1:3, 2:5] = [1, 2, 0]  # 1 + 256 * 2
    pixels[4:, :] = [7, 0, 0]
    (tmp_path / "annotations" / "panoptic_val2017").mkdir()
    Image.fromarray(pixels).save(tmp_path / "annotations" / "panoptic_val2017" / "000000000001.png")
    segments = [{"id": 513, "category_id": 18, "iscrowd": 0}, {"id": 7, "category_id": 200, "iscrowd": 0}]
    annotations = [{"image_id": 1, "file_name": "000000000001.png", "segments_info": segments}]
    categories = [{"id": 18, "name": "dog", "isthing": 1}, {"id": 200, "name": "sky", "isthing": 0}]
    write(tmp_path / "annotations" / "panoptic_val2017.json", {"annotations": annotations, "categories": categories})
    samples, _ = split_up(open_dataset("coco", root=tmp_path))
    (dog,) = samples["1"].truth.regions
    assert dog.name == "dog"
    mask = dog.shape.mask((8, 6))
    assert mask[1:3, 2:5].all()
    assert mask.sum() == 6
    assert samples["2"].truth.regions == ()


# An index beside a folder


def test_an_index_beside_its_folder(tmp_path: Path) -> None:
    draw(tmp_path / "coco", "000000000139.jpg", "000000000285.jpg", size=(8, 6))
    (tmp_path / "coco_panoptic").mkdir()
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    pixels[0, :4] = [5, 0, 1]  # 5 + 65536
    Image.fromarray(pixels).save(tmp_path / "coco_panoptic" / "000000000139.png")
    objects = [
        {"name": "tv", "panoptic_id": 65541},
        {"name": "cup", "segmentation": [[0, 0, 2, 0, 2, 2]]},
        {"name": "key", "box": [1, 1, 2, 3]},
    ]
    rows = [
        {"id": 139, "captions": ["one", "two"], "objects": objects},
        {"id": 285, "captions": ["one"], "objects": [{"panoptic_id": 1}]},
        {"id": 5, "captions": ["none"]},
        "nothing",
    ]
    write(tmp_path / "coco.json", rows)
    for dataset in (
        open_dataset("coco", root=tmp_path),
        open_dataset("json-index", root=tmp_path / "coco.json"),
        open_dataset(tmp_path / "coco.json"),
    ):
        samples, reasons = split_up(dataset)
        tv, cup, key = samples["139"].truth.regions
        assert tv.shape.mask((8, 6)).sum() == 4
        assert cup.shape.mask((8, 6))[0, :3].all()
        assert key.shape.mask((8, 6)).sum() == 2 * 3
        assert set(reasons) == {"285", "5", "record 4"}
    with pytest.raises(OptionError, match="not parted into splits"):
        open_dataset("coco", root=tmp_path, split="val")
    with pytest.raises(OptionError, match="no class"):
        open_dataset(tmp_path / "coco.json", per_class=2)


def test_an_index_of_classes(tmp_path: Path) -> None:
    names = ["val_10.JPEG", "val_9.JPEG", "val_1.JPEG"]
    draw(tmp_path / "tinyimagenet", *names, size=(64, 64))
    rows = [{"file": n, "wnid": "n1", "caption": "a photo of a cockroach, roach", "box": [0, 3, 63, 63]} for n in names]
    write(tmp_path / "tinyimagenet.json", rows)
    found = open_dataset("tiny-imagenet-200", root=tmp_path, per_class=2, class_names="first")
    samples, _ = split_up(found)
    assert list(samples) == ["val_1.JPEG", "val_9.JPEG"]
    assert samples["val_1.JPEG"].texts == ("a photo of a cockroach",)
    assert samples["val_1.JPEG"].truth.label == "cockroach"
    assert samples["val_1.JPEG"].truth.regions[0].shape == BoxShape(0, 3, 64, 64)


def test_white_borders_of_an_index_are_cut_away(tmp_path: Path) -> None:
    padded = Image.new("RGB", (64, 64), "white")
    padded.paste(Image.new("RGB", (32, 64), "black"), (16, 0))
    (tmp_path / "cc").mkdir()
    padded.save(tmp_path / "cc" / "000000040.jpg", quality=100)
    (tmp_path / "cc" / "000000041.jpg").write_bytes(b"broken")
    rows = [
        {"key": "000000040", "caption": "black", "original_width": 400, "original_height": 800},
        {"key": "000000041", "caption": "broken", "original_width": 400, "original_height": 800},
        {"key": "000000040", "caption": "no size", "original_width": 0, "original_height": 8},
    ]
    write(tmp_path / "cc.json", rows)
    samples, reasons = split_up(open_dataset("conceptual-captions", root=tmp_path))
    image = samples["000000040"].image
    assert image.size == (32, 64)
    assert np.asarray(image).max() < 64  # nothing white is left
    assert set(reasons) == {"000000041", "000000040"}


# Conceptual Captions


def test_conceptual_captions_by_the_papers_table(tmp_path: Path) -> None:
    draw(tmp_path / "cc", "00000/1.jpg", "00000/2.jpg")
    table = "caption,file_path\na dog,cc/00000/1.jpg\na cat,/home/them/datasets/cc/00000/2.jpg\ngone,cc/3.jpg\n"
    write(tmp_path / "cc.csv", table)
    samples, reasons = split_up(open_dataset("conceptual-captions", root=tmp_path))
    assert {name: sample.texts[0] for name, sample in samples.items()} == {
        "cc/00000/1.jpg": "a dog",
        "cc/00000/2.jpg": "a cat",
    }
    assert list(reasons) == ["cc/3.jpg"]


def test_conceptual_captions_by_the_official_table(tmp_path: Path) -> None:
    urls = [f"https://x.org/{n}.jpg" for n in range(4)]
    rows = "".join(f"caption {n}\t{url}\n" for n, url in enumerate(urls))
    write(tmp_path / "Validation_GCC-1.1.0-Validation.tsv", rows)
    write(tmp_path / "Train_GCC-training.tsv", "never\thttps://x.org/0.jpg\n")
    crc = f"0_{zlib.crc32(urls[0].encode())}"
    draw(tmp_path / "validation", crc, "000000001.jpg", "2.jpg")
    dataset = open_dataset("conceptual-captions", root=tmp_path)
    assert dataset.split == "validation"
    samples, reasons = split_up(dataset)
    assert {name: sample.texts[0] for name, sample in samples.items()} == {
        crc: "caption 0",
        "000000001": "caption 1",
        "2": "caption 2",
    }
    assert "not downloaded" in reasons["000000003"]
    with pytest.raises(InputError, match="for the split 'test'"):
        open_dataset("conceptual-captions", root=tmp_path, split="test")


def test_conceptual_captions_as_img2dataset_leaves_them(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    draw(tmp_path / "files" / "00000", "000000001.jpg", "000000002.jpg", "000000003.jpg")
    write(tmp_path / "files" / "00000" / "000000001.txt", "a dog")
    write(tmp_path / "files" / "00000" / "000000002.json", {"caption": "a cat", "status": "success"})
    samples, reasons = split_up(open_dataset("conceptual-captions", root=tmp_path / "files"))
    wanted = {"000000001": ("a dog",), "000000002": ("a cat",)}
    assert {name: sample.texts for name, sample in samples.items()} == wanted
    assert list(reasons) == ["000000003"]
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for path in sorted((tmp_path / "files" / "00000").iterdir()):
            archive.add(path, path.name)
    assert texts(open_dataset("conceptual-captions", root=tmp_path)) == wanted


# All of them


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_root_without_the_files_says_which_were_expected(tmp_path: Path, name: str) -> None:
    for options in ({}, {"root": tmp_path / "none"}, {"root": tmp_path}):
        with pytest.raises(InputError) as caught:
            open_dataset(name, **options)
        said = str(caught.value)
        assert "\n" not in said
        assert said.endswith(".")
        assert "root" in said
    expected = {"tiny-imagenet-200": "words.txt", "coco": "captions_val2017.json", "json-index": ".json"}
    assert expected.get(name, "") in said
    assert str(tmp_path) in said or name == "json-index"


def test_pictures_that_are_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "dataset_rsicd.json", karpathy({"beach_76.jpg": "val"}))
    with pytest.raises(InputError, match=r"pictures of RSICD, such as 'beach_76.jpg', are not in .*RSICD_images"):
        open_dataset("rsicd", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("coco", {"per_class": 1}),
        ("flickr8k", {"class_names": "first"}),
        ("coco", {"image_column": "x"}),
        ("rsicd", {"streaming": True}),
    ],
)
def test_options_that_a_named_dataset_has_not(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="leave"):
        open_dataset(name, root=tmp_path, **options)


def test_every_name_is_in_the_documents_and_says_what_it_needs() -> None:
    said = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name, known in DATASETS.items():
        assert name == known.name
        assert f"| `{name}` |" in said
        assert known.title
        assert known.summary
        assert known.needs
