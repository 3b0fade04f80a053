"""The small networks under study in the embedded world, rebuilt from their cards: ResNet, AlexNet, Vision Transformer.

All are narrow: fewer units than things to tell apart, so that most units answer to several concepts.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn

from neuronx.errors import UserError
from neuronx.options import OptionsOf
from neuronx.store.checkpoints import find, read
from neuronx.targets.custom import target
from neuronx.targets.layers import Layers
from neuronx.targets.preprocess import Preprocess
from neuronx.targets.target import Target
from neuronx.targets.timm import library

SIDE = 64
"""Of the pictures that these networks take."""


def small_resnet(classes: int) -> nn.Module:
    """A ResNet with torchvision's layer names (conv1, layer1 to layer4, fc): four basic blocks, at most 64 channels.

    Takes (B, 3, 64, 64) float32, gives (B, classes). Layer outputs: 16 x 32 x 32, 32 x 16 x 16, 48 x 8 x 8, 64 x 4 x 4.
    """
    network = library().create_model("resnet18", layers=(1, 1, 1, 1), channels=(16, 32, 48, 64), num_classes=classes)
    # Pictures are 64 pixels wide: the pooling after the first convolution would blur away corners and textures.
    network.maxpool = nn.Identity()
    return network


def small_vit(classes: int) -> nn.Module:
    """A Vision Transformer of four blocks, 64 patches of 8 pixels and a class token.

    Takes (B, 3, 64, 64) float32, gives (B, classes). `blocks.i` gives (B, 65, 96), `blocks.i.mlp.act` (B, 65, 192); the
    class token is the first. Patches are embedded by a few convolutions instead of one, which makes small transformers
    learn much faster (Xiao et al., "Early convolutions help transformers see better", 2021).
    """
    sizes: dict[str, Any] = {
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 2,
    }
    network: Any = library().create_model("vit_tiny_patch16_224", num_classes=classes, **sizes)
    network.patch_embed.proj = nn.Sequential(
        *(layer for narrow, wide in ((3, 24), (24, 48), (48, 96)) for layer in _halved(narrow, wide)),
        nn.Conv2d(96, 96, kernel_size=1),
    )
    return network


def _halved(narrow: int, wide: int) -> tuple[nn.Module, ...]:
    """A convolution that halves the sides, normalised and rectified."""
    return nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()


class SmallAlexNet(nn.Module):
    """Five convolutions with AlexNet's pools between them (Krizhevsky et al., 2012), and two layers that see it all.

    Takes (B, 3, 64, 64) float32, gives (B, classes). Layer outputs: `conv1` 24 x 32 x 32, `conv2` 40 x 16 x 16,
    `conv3` 48 x 8 x 8, `conv4` 48 x 8 x 8, `conv5` 48 x 8 x 8, each normalised and rectified; `fc6` 128.

    Args:
        classes: Their number.
    """

    num_features = 128

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = _rectified(3, 24, 5, 2)
        self.conv2 = _rectified(24, 40, 5)
        self.conv3 = _rectified(40, 48, 3)
        self.conv4 = _rectified(48, 48, 3)
        self.conv5 = _rectified(48, 48, 3)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.fc6 = nn.Sequential(nn.Flatten(), nn.Linear(48 * 16, self.num_features), nn.ReLU())
        self.fc8 = nn.Linear(self.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """From (B, 3, 64, 64) to logits (B, classes)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """What `conv5` gives, pooled once more: (B, 48, 4, 4)."""
        maps = self.pool(self.conv1(images))
        maps = self.pool(self.conv2(maps))
        return self.pool(self.conv5(self.conv4(self.conv3(maps))))

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """From those to logits (B, classes), or to the features (B, 128) that they are made of."""
        features = self.fc6(maps)
        return features if pre_logits else self.fc8(features)

    def get_classifier(self) -> nn.Module:
        """The last layer. These names are timm's."""
        return self.fc8


def _rectified(narrow: int, wide: int, side: int, stride: int = 1) -> nn.Sequential:
    """A convolution, normalised and rectified."""
    convolution = nn.Conv2d(narrow, wide, side, stride, side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wide), nn.ReLU(inplace=True))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "small_resnet": small_resnet,
    "small_vit": small_vit,
    "small_alexnet": SmallAlexNet,
}
"""By the name that a card gives; a card is data, so it may name nothing else."""


def load(
    checkpoint: str | Path,
    layers: Layers | None = None,
    pool: str = "avg",
    name: str | None = None,
    **options: Annotated[Any, OptionsOf(target)],
) -> Target:
    """Makes a target of a classifier of the embedded world.

    Args:
        checkpoint: Name of a shipped one (shapes_resnet, shapes_vit), or a safetensors file with its card beside it, as
            `train.py classifier=` writes them.
        layers: Asked for: one, several, or layer -> pooling; by default those of the card.
        pool: For layers without a pooling of their own.
        name: In tables; by default that of the file.
        options: `dictionary`, `dictionary_layer` and what else `neuronx.targets.custom.target` takes.

    Raises:
        UserError: No such file or name, or one that is no classifier.
    """
    state, card = read(checkpoint)
    path = find(checkpoint)
    if card.get("network") not in NETWORKS:
        raise UserError(f"The card of {path} names no network of {', '.join(NETWORKS)}; is it a classifier?")
    module = NETWORKS[card["network"]](len(card["classes"]))
    module.load_state_dict(state)
    return target(
        name or path.stem,
        module,
        Preprocess(mean=card["mean"], std=card["std"]),
        card["classes"],
        layers=card["layers"] if layers is None else layers,
        pool=pool,
        input_size=SIDE,
        **options,
    )
