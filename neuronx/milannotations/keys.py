"""What MILANNOTATIONS are called: models (`alexnet/imagenet`) and groups of them (`base`, `not-alexnet-imagenet`)."""

BASE = (
    "alexnet/imagenet",
    "alexnet/places365",
    "resnet152/imagenet",
    "resnet152/places365",
    "biggan/imagenet",
    "biggan/places365",
)
"""The models that people described first, in the order in which every group has them."""

ANNOTATED = (*BASE, "dino_vits8/imagenet")
"""All models with published annotations, three for each unit."""
ANNOTATIONS = 3


def _named(*parts: str) -> tuple[str, ...]:
    """Those of the base whose network or data set is one of `parts`."""
    return tuple(key for key in BASE if set(key.split("/")) & set(parts))


GROUPS: dict[str, tuple[str, ...]] = {
    "base": BASE,
    "cls": _named("alexnet", "resnet152"),
    "gen": _named("biggan"),
    "imagenet": _named("imagenet"),
    "places365": _named("places365"),
    "alexnet": _named("alexnet"),
    "resnet152": _named("resnet152"),
    "biggan": _named("biggan"),
    **{f"not-{one.replace('/', '-')}": tuple(key for key in BASE if key != one) for one in BASE},
}
"""Group -> its models."""

_TORCHVISION = (
    *("alexnet", "densenet121", "densenet201", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101"),
    *("resnet152", "shufflenet_v2_x1_0", "squeezenet1_0", "vgg11", "vgg13", "vgg16", "vgg19"),
)
UNANNOTATED = (
    *(f"{name}/{data}" for name in _TORCHVISION for data in ("imagenet", "imagenet-blurred")),
    "resnet18/places365",
)
"""Models that MILAN names (those of `ANNOTATED` apart) and nobody annotated: their exemplars were never published."""
UNANNOTATED = tuple(key for key in UNANNOTATED if key not in ANNOTATED)


def from_imagenet(key: str) -> bool:
    """Whether a model's exemplars are ImageNet's validation images, which may not be handed out with the masks."""
    network, _, data = key.partition("/")
    return data == "imagenet" and network != "biggan"
