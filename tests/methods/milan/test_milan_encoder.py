import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuronx.errors import UserError
from neuronx.methods.milan import describer as encoders
from neuronx.methods.milan.describer import RegionEncoder, encoder_of, shrunk
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target


@pytest.fixture(scope="module")
def small():
    return encoder_of("shapes_resnet")


def pictures(n=3, side=64, seed=0):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def by_the_book(encoder, image, mask):
    """One picture, tap by tap, from the formula."""
    module, found = encoder.target.module, []
    for tap in encoder.taps:
        part = module.get_submodule(tap)
        seen = []
        handle = part.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.clone()))
        with torch.no_grad():
            module(encoder.target.transform(image[None]))
        handle.remove()
        grid = F.adaptive_avg_pool2d(mask[None].float(), seen[0].shape[-2:])[0, 0]
        found.append((seen[0][0] * grid).sum((1, 2)) / grid.sum() if grid.sum() else torch.zeros(seen[0].shape[1]))
    return torch.cat(found)


def test_each_tap_is_averaged_over_its_mask(small):
    images, masks = pictures(), torch.zeros(3, 1, 64, 64, dtype=torch.uint8)
    masks[0, :, 5:30, 10:50] = 1
    masks[1, :, 60:, 60:] = 1
    with torch.inference_mode():
        found = small(images, masks)
    assert found.shape == (3, 64 + 16 + 32 + 48 + 64) == (3, small.size)
    for i in range(3):
        torch.testing.assert_close(found[i], by_the_book(small, images[i], masks[i]), atol=1e-4, rtol=1e-4)
    assert not found[2].any() and found[:2].any(1).all()


def test_small_masks_do_not_vanish():
    masks = torch.zeros(1, 1, 224, 224)
    masks[..., 100:104, 113:117] = 1
    assert shrunk(masks, (7, 7)).sum() > 0
    assert shrunk(masks, (7, 7), published=True).sum() == 0
    assert shrunk(masks, (7, 7)).sum().item() == pytest.approx(16 / 32**2)


def test_no_mask_is_a_full_mask(small):
    with torch.inference_mode():
        torch.testing.assert_close(small(pictures()), small(pictures(), torch.ones(3, 1, 64, 64)))


def test_floats_are_pictures_too(small):
    with torch.inference_mode():
        torch.testing.assert_close(small(pictures()), small(pictures() / 255))


def test_nothing_after_the_last_tap_is_run(small):
    for encoder, idle in (
        (small, ["fc"]),
        (encoder_of("shapes_resnet", taps=["conv1", "layer2"]), ["layer3", "layer4", "fc"]),
    ):
        calls = []
        parts = [encoder.target.module.get_submodule(name) for name in idle]
        handles = [part.register_forward_hook(lambda *_, calls=calls: calls.append(1)) for part in parts]
        with torch.inference_mode():
            encoder(pictures())
        for handle in handles:
            handle.remove()
        assert not calls and not set(idle) & set(encoder.taps)


def test_layers_without_positions_and_tokens_can_be_taps():
    vit = encoder_of("shapes_vit", taps=["blocks.0", "blocks.1"])
    masks = torch.zeros(2, 1, 64, 64)
    masks[..., :16, :8] = 1  # two patches
    with torch.inference_mode():
        found = vit(pictures(2), masks)
        with vit.target.record(["blocks.1"]) as seen:
            vit.target.module(vit.target.transform(pictures(2)))
    torch.testing.assert_close(found[:, 96:], seen["blocks.1"][:, [1, 9]].mean(1), atol=1e-4, rtol=1e-4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    flat = RegionEncoder(Target("flat", net, Preprocess(), {"1": "none"}), ("1",), 2)
    with torch.inference_mode():
        assert flat(pictures(2, 2), torch.tensor([1.0, 0]).view(2, 1, 1, 1)).any(1).tolist() == [True, False]


@pytest.mark.parametrize("name, size", [("resnet18", 1024), pytest.param("alexnet", 1152, marks=pytest.mark.slow)])
def test_published_backbones_fill_the_network(name, size):
    from torchvision.models import get_model

    torch.manual_seed(0)
    module = get_model(name, weights=None)
    state = {key: value for key, value in module.state_dict().items() if not key.startswith("fc.")}
    one, again = (encoder_of(name, backbone=state) for _ in range(2))
    assert one.identity == again.identity and one.side is None
    with torch.inference_mode():
        assert one(pictures(1), torch.ones(1, 1, 64, 64)).shape == (1, size)
    assert torch.equal(next(one.target.module.parameters()), next(module.parameters()))
    first = next(iter(state))
    with pytest.raises(UserError, match=f"do not fit {name}: {first}"):
        encoder_of(name, backbone=state | {first: torch.zeros(1)})


def test_the_whole_cost_is_the_bare_forward_of_the_used_part():
    """Time is noisy; the count of what runs is not."""
    encoder = encoder_of("resnet18", backbone=encoders.torchvision.load("resnet18", "random").module.state_dict())
    images, masks = pictures(15, 96), torch.ones(15, 1, 96, 96)
    module = encoder.target.module
    used = nn.Sequential(*list(module.children())[:-2])
    inputs = encoder._inputs(images)
    with torch.inference_mode():
        times = {"bare": 1e9, "ours": 1e9}
        for _ in range(5):
            for which, run in (("bare", lambda: used(inputs)), ("ours", lambda: encoder(images, masks))):
                start = time.process_time()
                run()
                times[which] = min(times[which], time.process_time() - start)
    assert times["ours"] < 1.35 * times["bare"]


def test_mistakes_are_said(small):
    with pytest.raises(UserError, match="images"):
        small(torch.zeros(2, 1, 8, 8))
    with pytest.raises(UserError, match="masks"):
        small(pictures(2), torch.zeros(3, 1, 8, 8))
    with pytest.raises(UserError, match="normalises"):
        RegionEncoder(Target("net", nn.Conv2d(3, 2, 1), lambda x: x, {"": "avg"}), ("",))
    with pytest.raises(UserError, match="resnet101"):
        encoder_of("shapes_resnt")


def test_the_picture_tower_of_a_small_clip_is_an_encoder():
    encoder = encoder_of("shapes_explainer")
    assert (encoder.name, encoder.taps, encoder.size) == ("shapes_explainer", ("layer3", "layer4"), 768)
    assert encoder_of("shapes_explainer", ["layer1"]).size == 64
