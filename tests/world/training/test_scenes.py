import torch

from neuronx.world.pictures.probe import seeds_of
from neuronx.world.pictures.scene import PROBE
from neuronx.world.training.classifier import describe
from neuronx.world.training.scenes import EpochSampler, SceneBatches, SceneStream, fixed_batches

PARTS = ("shapes_resnet", "shapes_vit", "shapes_explainer", "shapes_judge", "shapes_gan")


def test_no_part_sees_pictures_of_another_or_of_the_probe():
    used = [seed for part in PARTS for seed in seeds_of(part)]
    assert len(set(used)) == 2 * len(PARTS) and PROBE not in used


def test_every_epoch_brings_new_batches():
    seen = [number for epoch in range(3) for number in EpochSampler(3, lambda now=epoch: now)]
    assert seen == list(range(9))


def test_ranks_share_an_epoch_without_padding_and_get_equally_many():
    samplers = [EpochSampler(5, lambda: 1, rank, 2) for rank in range(2)]
    assert [list(sampler) for sampler in samplers] == [[5, 7], [6, 8]]
    assert [len(sampler) for sampler in samplers] == [2, 2]


def test_a_batch_is_the_same_pictures_however_they_are_batched():
    small, large = SceneBatches(3, 4, describe), SceneBatches(3, 8, describe)
    parts = [torch.cat(pair) for pair in zip(small[2], small[3], strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(parts, large[1], strict=True))


def test_streams_hold_pictures_and_what_is_true_of_them():
    images, labels, words = next(iter(SceneStream(describe, 3, 64, 16).train_dataloader()))
    assert images.shape == (16, 3, 64, 64) and images.dtype == torch.uint8
    assert labels.shape == (16,) and words.shape == (16, 50) and words.dtype == torch.bool
    assert sum(len(batch[0]) for batch in fixed_batches(3, 250, describe)) == 250
