"""Networks from everywhere, without a network: files, folders and stubs in place of downloads."""

import argparse
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from neuronx.errors import UserError
from neuronx.targets import cifar, custom, hub, timm, transformers
from neuronx.targets import torchvision as of_torchvision
from neuronx.targets.custom import class_names_of
from neuronx.targets.preprocess import TRANSFORMS, Preprocess, transform_of

SOURCE = """
from torch import nn
from mylayers_{id} import Double
class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.fc = nn.Linear(4, classes)
        self.twice = Double()
    def forward(self, x):
        return self.twice(self.fc(x)){change}
number = 7
"""


@pytest.fixture
def mynets(tmp_path, monkeypatch):
    """Writes a module of one's own into the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)
    made = []

    def write(id: str, change: str = "") -> str:
        (tmp_path / f"mynets_{id}.py").write_text(SOURCE.format(id=id, change=change))
        (tmp_path / f"mylayers_{id}.py").write_text(
            "from torch import nn\nclass Double(nn.Module):\n    def forward(self, x): return 2 * x\n"
        )
        made.extend([f"mynets_{id}", f"mylayers_{id}"])
        return f"mynets_{id}"

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_your_own_class_by_import_path_with_weights_and_classes(mynets, tmp_path):
    module = mynets("a")
    weights = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.zeros(3)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, "w.th")
    (tmp_path / "classes.txt").write_text("cat\ndog\r\ncow\n")
    target = custom.load(f"{module}.Net", "w.th", "cifar10", layers="fc", pool="none", classes="classes.txt")
    assert (target.name, target.layers, target.class_names) == ("Net", {"fc": "none"}, ("cat", "dog", "cow"))
    assert torch.equal(target.module(torch.ones(1, 4)), torch.full((1, 3), 8.0))
    assert str(tmp_path) not in sys.path
    assert custom.load(f"{module}.Net", arguments={"classes": 9}).module.fc.out_features == 9
    assert custom.load(nn.Linear(4, 2), name="mine").name == "mine"
    assert custom.load(lambda: nn.Linear(4, 2)).module.out_features == 2


def test_editing_your_forward_is_another_network(mynets):
    torch.manual_seed(0)
    targets = [custom.load(f"{mynets(id, change)}.Net") for id, change in (("b", ""), ("c", ""), ("d", " + 1"))]
    for target in targets:
        target.module.load_state_dict(targets[0].module.state_dict())
    sources = [custom.load(target.module).digest for target in targets]
    assert len(set(sources)) == 3  # b and c differ by their class path


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{}.Nett", "no name in mynets_e `Nett`. Nearest: Net"),
        ("mynets_nowhere.Net", "no module `mynets_nowhere`, neither installed nor in"),
        ("Net", "write it as an import path"),
        ("{}.number", "a class or function.* is needed"),
        ("builtins.dict", "`builtins.dict` is not called"),
    ],
)
def test_what_is_no_network(mynets, model, message):
    with pytest.raises(UserError, match=message):
        custom.load(model.format(mynets("e")))


def test_arguments_that_do_not_fit(mynets):
    with pytest.raises(UserError, match=r"cannot be called with \{'sides': 3\}.*set `arguments`"):
        custom.load(f"{mynets('f')}.Net", arguments={"sides": 3})


def test_torchvision_with_its_weights_a_file_or_none(monkeypatch, tmp_path):
    asked = []

    def fetch(url, path, size=None, sha256=None, hint=""):
        asked.append((url, sha256, hint))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torchvision.models.resnet18().state_dict(), path)
        return path

    monkeypatch.setattr("neuronx.targets.torchvision.fetch", fetch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, **_: torch.load(f"{torch.hub.get_dir()}/checkpoints/{url.rsplit('/', 1)[-1]}", weights_only=False),
    )
    target = of_torchvision.load("resnet18", "IMAGENET1K_V1", layers="layer4")
    assert asked == [(asked[0][0], "f37072fd", "or set target.torchvision.weights=FILE")]
    assert target.transform == TRANSFORMS["imagenet"] and len(target.class_names) == 1000
    torch.save(target.module.state_dict(), tmp_path / "mine.pth")
    mine = of_torchvision.load("resnet18", tmp_path / "mine.pth", layers="layer4")
    assert mine.digest == target.digest and mine.class_names == () and len(asked) == 1
    assert of_torchvision.load("resnet18", "random", arguments={"num_classes": 7}).module.fc.out_features == 7
    with pytest.raises(UserError, match=r"weights of resnet18 `IMAGENET1K_V2`. Nearest: IMAGENET1K_V1"):
        of_torchvision.load("resnet18", "IMAGENET1K_V2")
    with pytest.raises(UserError, match=r"no network of torchvision `resnet19`. Nearest: resnet1"):
        of_torchvision.load("resnet19")


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "vit_l_16", "swin_t", "efficientnet_b0"])
def test_transforms_do_what_torchvisions_do(name):
    picture = Image.fromarray(torch.randint(0, 256, (300, 401, 3), dtype=torch.uint8).numpy())
    preset = torchvision.models.get_model_weights(name).IMAGENET1K_V1.transforms()
    ours = of_torchvision._transform(preset)(picture)
    torch.testing.assert_close(ours, preset(picture), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "test_vit", "convnext_atto"])
def test_transforms_do_what_timms_do(name):
    import timm as library

    picture = Image.fromarray(torch.randint(0, 256, (300, 401, 3), dtype=torch.uint8).numpy())
    config = library.data.resolve_model_data_config(library.create_model(name))
    theirs = library.data.create_transform(**config, is_training=False)
    torch.testing.assert_close(timm._transform(config)(picture), theirs(picture), atol=1e-5, rtol=1e-4)


def test_timm_reads_checkpoints_of_trainers_and_adapts_a_head(tmp_path):
    import timm as library

    theirs = library.create_model("test_vit.r160_in1k")
    saved = {f"model.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": saved, "args": argparse.Namespace(lr=1), "best": np.float32(1)}, tmp_path / "w.ckpt")
    target = timm.load("test_vit.r160_in1k", tmp_path / "w.ckpt", layers="blocks.1", pool="patch")
    assert torch.equal(target.module.pos_embed, theirs.pos_embed)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    target = timm.load("test_vit.r160_in1k", tmp_path / "w.pt", arguments={"num_classes": 7}, layers="blocks.1")
    assert torch.equal(target.module.pos_embed, theirs.pos_embed) and target.module.head.weight.shape[0] == 7
    (tmp_path / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(UserError, match="is a git-lfs pointer"):
        timm.load("test_vit.r160_in1k", tmp_path / "lfs.pt")


def test_no_transform_is_pictures_as_they_are():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    assert custom.load(network, transform=None).transform == custom.load(network, transform="none").transform


def test_timm_from_a_file_or_the_hub(monkeypatch, tmp_path):
    import timm as library

    module = library.create_model("test_vit")
    torch.save(module.state_dict(), tmp_path / "w.pth")
    target = timm.load("test_vit.r160_in1k", tmp_path / "w.pth", layers="blocks.1", pool="patch")
    assert target.prefix_tokens == 1 and torch.equal(target.module.head.weight, module.head.weight)
    asked = []
    monkeypatch.setattr(
        "neuronx.targets.timm.fetch_from_hub",
        lambda repository, names, hint: asked.append((repository, names[0])) or tmp_path / "w.pth",
    )
    assert timm.load("test_vit.r160_in1k", layers="blocks.1").digest == target.digest
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]
    with pytest.raises(UserError, match=r"does not fit ResNet.*The file's names"):
        timm.load("test_resnet.r160_in1k", tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"no network of timm `test_vitt`. Nearest: test_vit"):
        timm.load("test_vitt")


def test_transformers_from_a_folder(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

    config = ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog"},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(
        tmp_path / "vit"
    )
    target = transformers.load(tmp_path / "vit", layers="", pool="none")
    assert (target.name, target.class_names, target.prefix_tokens) == ("vit", ("cat", "dog"), 1)
    assert target.transform == Preprocess((32, 32), None, (0.5,) * 3, (0.25,) * 3)
    rows = {row.name: row for row in target.layer_table()}
    block = next(name for name in rows if name.endswith("layer.1") or name.endswith("layers.1"))
    assert rows[block].shape == (17, 12) and "patch" in rows[block].poolings
    ViTModel(config).save_pretrained(tmp_path / "backbone")
    with pytest.raises(UserError, match="backbone cannot be loaded"):
        transformers.load(tmp_path / "backbone")
    assert transformers.load(tmp_path / "backbone", transform="imagenet", classes=None).layers == {"": "avg"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            (256, (224, 224)),
        ),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (256, (224, 224))),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, ((384, 384), (384, 384))),
        ({"size": {"height": 30, "width": 40}}, ((30, 40), None)),
    ],
)  # fmt: skip
def test_image_processors_become_transforms(settings, expected):
    made = transformers._transform(settings | {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]})
    assert (made.resize, made.crop) == expected


def test_of_a_clip_of_transformers_the_vision_tower_is_studied(tmp_path):
    from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision, text = small | {"image_size": 32, "patch_size": 16}, small | {"vocab_size": 9}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=4)).save_pretrained(tmp_path / "clip")
    target = transformers.load(
        tmp_path / "clip", transform={"resize": [32, 32]}, layers="encoder.layers.0", pool="first"
    )
    assert [row.units for row in target.layer_table(layers=target.layers)] == [8] and target.prefix_tokens == 1
    BertModel(BertConfig(vocab_size=9, **small)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="takes input_ids, not pictures"):
        transformers.load(tmp_path / "bert", transform="imagenet")


def test_hub_asks_for_trust_and_takes_a_folder(tmp_path):
    (tmp_path / "hubconf.py").write_text("from torch import nn\ndef net(pretrained=False): return nn.Linear(3, 2)\n")
    with pytest.raises(UserError, match=r"runs the code of .*set trust=true"):
        hub.load(str(tmp_path), "net")
    assert hub.load(str(tmp_path), "net", trust=True).name == "net"
    with pytest.raises(UserError, match="cannot be loaded: Cannot find callable nett"):
        hub.load(str(tmp_path), "nett", trust=True)


def test_transforms_by_name_fields_or_callable():
    assert transform_of({"resize": 256, "mean": [0.5] * 3, "std": [0.5] * 3}) == Preprocess(
        256, None, (0.5,) * 3, (0.5,) * 3
    )
    assert transform_of(len) is len
    with pytest.raises(UserError, match=r"no transform `imagnet`. Nearest: imagenet"):
        transform_of("imagnet")
    with pytest.raises(UserError, match="no field of a transform `size`"):
        transform_of({"size": 3})
    with pytest.raises(UserError, match="neither a name nor the fields"):
        transform_of(3)


def test_class_names(tmp_path):
    assert class_names_of("imagenet")[:2] == ("tench", "goldfish") and class_names_of(None) == ()
    assert class_names_of([1, "no"]) == ("1", "no")
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    with pytest.raises(UserError, match=r"gap.txt, line 2 is blank"):
        class_names_of(tmp_path / "gap.txt")
    with pytest.raises(UserError, match="no file of class names imagnet"):
        class_names_of("imagnet")


def test_the_cifar_networks_have_the_published_shapes():
    vgg = cifar.vgg16_bn()
    assert vgg(torch.zeros(2, 3, 32, 32)).shape == (2, 100) and isinstance(vgg.features[43], nn.MaxPool2d)
    assert sum(p.numel() for p in vgg.parameters()) == pytest.approx(15.30e6, rel=1e-3)  # its authors' table
    assert sum(p.numel() for p in cifar.resnet20().parameters()) == pytest.approx(0.27e6, rel=0.01)
    assert sum(p.numel() for p in cifar.resnet56().parameters()) == pytest.approx(0.85e6, rel=0.01)


@pytest.mark.parametrize("name", ["resnet20_cifar10-12fca82f.th", "resnet56_cifar10-4bfd9763.th"])
def test_real_cifar_networks_classify(shared, name):
    model = f"neuronx.targets.cifar.{name.split('_')[0]}"
    target = custom.load(model, shared / "data/weights" / name, "cifar10", layers="layer3")
    folders = sorted((shared / "data/cifar10/test").iterdir())
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())[:10]]
    with torch.inference_mode():
        logits = target.module(torch.stack([target.transform(Image.open(path)) for path, _ in files]))
    assert (logits.argmax(1) == torch.tensor([label for _, label in files])).float().mean() > 0.7


def test_real_squeezenet_classifies(shared):
    weights = shared / "data/weights/squeezenet1_0_imagenet.safetensors"
    target = of_torchvision.load(
        "squeezenet1_0", weights, layers="features.12", transform="squeezenet", classes="imagenet"
    )
    folders = sorted(path for path in (shared / "data/imagenet_sample").iterdir() if path.is_dir())[::60]
    pictures = torch.stack([target.transform(Image.open(next(folder.iterdir()))) for folder in folders])
    with torch.inference_mode():
        right = target.module(pictures).argmax(1) == torch.arange(0, 1000, 60)
    assert right.float().mean() > 0.45
