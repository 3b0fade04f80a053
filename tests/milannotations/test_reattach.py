"""ImageNet's images come back as the networks saw them."""

import numpy as np
import pytest
import torch
from model_folders import make_layer, make_table
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from neuronx.errors import UserError
from neuronx.milannotations import attach, load, reattach
from neuronx.milannotations.reattach import imagenet_pictures

CLASSES = ("n01440764", "n01443537", "n02102040")
COUNT = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve pictures of three classes, high and wide, one of them grey."""
    root = tmp_path_factory.mktemp("val")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        size = (320, 280) if number % 2 else (260, 400)
        small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        picture = small.resize(size, Image.Resampling.BICUBIC).convert("L" if number == 5 else "RGB")
        # the order of files across classes is not that of their names
        path = root / CLASSES[(number * 5) % 3] / f"ILSVRC2012_val_{number:08}.JPEG"
        path.parent.mkdir(exist_ok=True)
        picture.save(path, "JPEG")
    return root


def expected(source, folder, layer, squash) -> np.ndarray:
    """As MILAN's code did it, through torchvision."""
    steps = [Resize((224, 224))] if squash else [Resize(256), CenterCrop(224)]
    pictures = ImageFolder(str(source), Compose([*steps, ToTensor()]))
    ids = np.loadtxt(folder / layer / "ids.csv", delimiter=",", dtype=int)
    images = torch.stack([torch.stack([pictures[i][0] for i in row]) for row in ids])
    return (images * 255).clamp(0, 255).byte().numpy()


@pytest.mark.parametrize("squash", [False, True])
def test_images_are_cropped_as_the_masks_were_made_or_squashed_by_choice(source, tmp_path, monkeypatch, squash):
    monkeypatch.setattr(reattach, "CHUNK_BYTES", 1)
    make_layer(tmp_path / "conv1", 2, side=224, images=False)
    made = attach(tmp_path, imagenet_pictures(source, COUNT), squash=squash)
    assert made == [tmp_path / "conv1" / "images.npy"]
    images = np.load(made[0], mmap_mode="r")
    assert images.shape == (2, 3, 3, 224, 224) and images.dtype == np.uint8
    assert np.array_equal(images, expected(source, tmp_path, "conv1", squash))
    assert not np.array_equal(images, expected(source, tmp_path, "conv1", not squash))
    assert made[0].read_bytes()[:8] == b"\x93NUMPY\x01\x00" and images.offset == 128


def test_layers_that_have_images_keep_them(source, tmp_path):
    pixels, _ = make_layer(tmp_path / "a")
    make_layer(tmp_path / "b", images=False)
    pictures = imagenet_pictures(source, COUNT)
    assert attach(tmp_path, pictures) == [tmp_path / "b" / "images.npy"]
    assert np.array_equal(np.load(tmp_path / "a" / "images.npy"), pixels)
    assert attach(tmp_path, pictures, layers=["a"], force=True) == [tmp_path / "a" / "images.npy"]
    assert not np.array_equal(np.load(tmp_path / "a" / "images.npy"), pixels)


def test_the_order_is_that_of_classes_in_any_layout(source, tmp_path):
    known = [path for path, _ in ImageFolder(str(source)).samples]
    assert [str(path) for path in imagenet_pictures(source, COUNT)] == known
    flat = tmp_path / "flat"
    flat.mkdir()
    lines = []
    for path in source.rglob("*.JPEG"):
        (flat / path.name).symlink_to(path)
        lines.append(f"{path.name},{path.parent.name}\n")
    with pytest.raises(UserError, match=r"holds images without their classes; expected a folder for each WordNet id"):
        imagenet_pictures(flat, COUNT)
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(sorted(lines)))
    assert [path.name for path in imagenet_pictures(flat, COUNT)] == [path.rsplit("/", 1)[1] for path in known]
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "val").symlink_to(source)
    assert [path.name for path in imagenet_pictures(tmp_path / "outer", COUNT)] == [p.rsplit("/", 1)[1] for p in known]


def test_a_missing_image_would_shift_all_that_follow(source, tmp_path):
    with pytest.raises(UserError, match=r"holds 12 images, and ids.csv counts through all 50000"):
        imagenet_pictures(source)
    with pytest.raises(UserError, match=r"There is no folder .*none with ImageNet's"):
        imagenet_pictures(tmp_path / "none")


def test_load_brings_them_back_when_they_are_missing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(reattach, "VALIDATION_IMAGES", COUNT)
    folder = tmp_path / "resnet152" / "imagenet"
    make_layer(folder / "conv1", 1, side=16, images=False)
    make_table(folder, [("conv1", 0, text) for text in ("dots", "a dog", "lines")])
    found = load("resnet152/imagenet", tmp_path, imagenet=source)
    assert found[0].images.shape == (3, 3, 16, 16) and found[0].annotations == ("dots", "a dog", "lines")
    (folder / "conv1" / "images.npy").unlink()
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "val").symlink_to(source)
    assert len(load("resnet152/imagenet", tmp_path)) == 1


def test_mistakes_are_named(source, tmp_path, monkeypatch):
    make_layer(tmp_path / "a", 2, images=False)
    pictures = imagenet_pictures(source, COUNT)
    numbers = tmp_path / "a" / "ids.csv"
    numbers.write_text("1,2,3\n4,12,5\n")
    with pytest.raises(UserError, match=r"a/ids.csv, line 2: image 12 of 12"):
        attach(tmp_path, pictures)
    numbers.write_text("1,2,3\n4,x,5\n")
    with pytest.raises(UserError, match=r"a/ids.csv, line 2: `x` is not the number of an image"):
        attach(tmp_path, pictures)
    numbers.write_text("1,2,3\n4,0,5\n")
    broken = tmp_path / "broken.JPEG"
    broken.write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(UserError, match=r"broken.JPEG does not decode"):
        attach(tmp_path, [broken, *pictures[1:]])
    assert not (tmp_path / "a" / "images.npy").exists() and len(list((tmp_path / "a").iterdir())) == 2
    np.save(tmp_path / "a" / "masks.npy", np.zeros((2, 3, 1, 8, 9), np.uint8))
    with pytest.raises(UserError, match=r"masks.npy: ImageNet's images are square here, not 8 x 9"):
        attach(tmp_path, pictures)

    def full(*_):
        raise OSError(28, "No space left on device")

    make_layer(tmp_path / "a", 2, images=False)
    monkeypatch.setattr(reattach, "write_atomic", full)
    with pytest.raises(UserError, match=r"images cannot be written \(No space left on device\)"):
        attach(tmp_path, pictures)
