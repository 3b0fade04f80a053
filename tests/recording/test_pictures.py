"""What a network sees of a picture, as bytes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from neuronx.data.folder import FolderProbe
from neuronx.data.in_memory import InMemoryProbe
from neuronx.recording.pictures import as_bytes, gallery, view
from neuronx.targets.preprocess import Preprocess

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))


def test_a_list_of_steps_is_shown_without_its_normalisation():
    steps = [Resize(24), CenterCrop(20), ToTensor()]
    shown = view(Compose([*steps, Normalize([0.5] * 3, [0.1] * 3)]), 20)(PICTURE)
    assert torch.equal(shown, (Compose(steps)(PICTURE) * 255).round().byte())


def test_of_an_unknown_transform_the_whole_picture_is_squashed():
    shown = view(lambda picture: torch.zeros(3, 8, 8), 12)(PICTURE)
    expected = np.asarray(PICTURE.resize((12, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(shown.permute(1, 2, 0).numpy(), expected)


def test_pictures_that_are_tensors_already_are_made_visible():
    ready = torch.stack([torch.full((3, 4, 4), 0.2), torch.linspace(-2, 3, 48).view(3, 4, 4)])
    shown = view(Preprocess(), 4)(ready)
    assert shown[0].unique().tolist() == [51], "what is in [0, 1] stays"
    assert shown[1].min() == 0 and shown[1].max() == 255, "what is not is scaled"


@pytest.mark.parametrize("size", [9, 16])
def test_other_sizes_are_squashed(size):
    assert as_bytes(torch.ones(2, 3, 12, 20), size).shape == (2, 3, size, size)
    assert as_bytes(torch.ones(3, 12, 20), size).float().mean() == 255


def test_a_gallery_opens_each_picture_once_and_leaves_nothing(tmp_path):
    opened = []

    class Counted(InMemoryProbe):
        def load(self, rows):
            opened.extend(rows)
            return super().load(rows)

    pictures = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 5, 5).contiguous()
    rows = torch.tensor([[7, 2], [2, 9]])
    kept = gallery(rows, Counted(pictures, batch_size=2), view(Preprocess(), 5), tmp_path)
    assert opened == [2, 7, 9] and not list(tmp_path.iterdir())
    assert torch.equal(kept.of(rows)[..., 0, 0, 0], rows.byte())


def test_pages_show_photographs_upright_and_grey_of_any_depth(tmp_path):
    shown = PICTURE.resize((40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "pictures").mkdir()
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "pictures" / "0.png", exif=exif)
    grey = np.asarray(shown.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "pictures" / "1.png")
    kept = gallery(torch.arange(2), FolderProbe(tmp_path / "pictures"), view(Preprocess(), 40), tmp_path)
    assert np.array_equal(kept.of(torch.tensor([0]))[0].permute(1, 2, 0).numpy(), np.asarray(shown))
    assert np.array_equal(kept.of(torch.tensor([1]))[0, 0].numpy(), np.asarray(shown.convert("L")))
