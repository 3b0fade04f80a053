"""A CLIP that looks within masks, against the same equations written out token by token."""

import sys
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from torch.nn import functional as F

from neuronx.concepts.encoders import Encoder
from neuronx.concepts.masked_clip import MaskedClip, confined
from neuronx.targets.preprocess import Preprocess
from neuronx.world.clip import ShapesClip

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from oracles_masked_clip import masked_embedding

TEXT = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 24, "patch_size": 8, "head_width": 12, "ls_init_value": 0.7}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
AVERAGING = {**VIT, "pool_type": "avg"}
HOW = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.25, 0.3, 0.2))


def seeing(vision, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(12, vision, TEXT).eval().requires_grad_(False)
    return MaskedClip(Encoder(model, None, HOW, "digest").image_target("tiny"), **options)


def pictures(n=3, side=32, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clip():
    return seeing(VIT)


@pytest.fixture
def masks():
    some = torch.zeros(3, 1, 32, 32, dtype=torch.uint8)
    some[0, :, :16, 4:20] = 1
    some[1, :, 17, 30] = 1
    return some  # the last is empty


def test_the_class_token_attends_within_the_mask(clip, masks):
    found = clip(pictures(), masks)
    tower, inputs = clip.target.module.visual, HOW(pictures())
    for i in range(3):
        weights = torch.stack([cell.mean() for row in masks[i, 0].float().split(8) for cell in row.split(8, 1)])
        expected = masked_embedding(tower, inputs[i], weights)
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
    assert clip.attends and found.shape == (3, 12) and found.isfinite().all()


def test_a_full_mask_is_the_plain_embedding(clip):
    whole = clip.target.module(HOW(pictures()))
    torch.testing.assert_close(clip(pictures(), torch.ones(3, 1, 32, 32)), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clip(pictures(), torch.ones(3, 1, 7, 7)), whole, atol=1e-5, rtol=1e-5)


def test_masks_come_to_the_patches_as_a_mean_or_as_published(clip, masks):
    tower, inputs = clip.target.module.visual, HOW(pictures())
    published = seeing(VIT, published_masks=True)
    weights = F.interpolate(masks.float(), (4, 4), mode="bilinear", align_corners=False).flatten(1)
    expected = F.normalize(confined(tower, inputs, weights), dim=-1)
    torch.testing.assert_close(published(pictures(), masks), expected, atol=1e-5, rtol=1e-5)
    assert not weights[1].any() and published.identity != clip.identity
    assert not torch.allclose(clip(pictures(), masks)[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("vision", [RESNET, AVERAGING])
def test_towers_without_a_class_token_see_the_rest_as_grey(vision, masks):
    clip = seeing(vision)
    assert not clip.attends
    expected = clip.target.module(HOW(pictures()) * masks)
    torch.testing.assert_close(clip(pictures(), masks), expected, atol=1e-5, rtol=1e-5)


def test_pictures_of_another_size_are_squashed(clip):
    plain = pictures(1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., :32, :] = 1
    small = F.interpolate(plain.float(), (32, 32), mode="bicubic", antialias=True).clamp(0, 255)
    expected = clip(small.round().byte(), masks[..., ::2, ::2])
    torch.testing.assert_close(clip(plain, masks), expected, atol=0.02, rtol=0)


def test_the_shipped_clip_looks_within_masks():
    explainer = ShapesClip(pretrained="shapes_explainer")
    clip = MaskedClip(explainer.encoder.image_target("explainer"))
    assert clip(pictures(2, 64), torch.ones(2, 1, 64, 64)).shape == (2, 96)
