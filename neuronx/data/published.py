"""Word lists, hierarchies and splits that others published: fetched on first use, checked by sha256, never vendored."""

from pathlib import Path

from neuronx.errors import UserError, unknown
from neuronx.store.cache import data_root
from neuronx.store.download import fetch

_LE = "Trustworthy-ML-Lab/Linear-Explanations/ff97d8a6f01ff92a8409199365bf975e03b896da/data"
_DISSECT = "Trustworthy-ML-Lab/CLIP-dissect/21e7697feaea3bf7d7bc2d2cc8e4047d5f5fd502/data"

# Path under $NEURONX_DATA, bytes, sha256. Whoever puts the files there needs no network.
_LISTED = """
concepts/3k.txt 22223 425845cf228cf91200e25cbf0361cc078502ce1cc2f9d4558b29abe78096afe1
concepts/10k.txt 75153 d6b3e04f1ac30be6525d41474166c0bff28486ecd8c48dcb0ab9c7c9cc05ed86
concepts/20k.txt 155418 4ed6e5336d7760d281f7e72df31827da880c861363e820d8c65666b0f10d9ac0
concepts/nouns.txt 54859 f3dd706ec751959fa1acd211c3b991a4fade39077c9e114b64d6a7e73d5631b4
concepts/broden_labels_clean.txt 12713 27c58bfb442831144d4c37b33eeb21cf2844eff0658b917614d22a0fdaa70fb7
classes/imagenet.txt 11813 cf94df9eb46d33f94eb8496fce052f8e667c75aab5909e22f9031cbf890480fe
classes/cifar100.txt 724 60ae3a3ac1355fcfec19c0ea3cb5fde15203ecf3b537cabcf6d5d54688ee9a4d
classes/places365.txt 4463 6070e8cf4635e5e029cc4ed0d6e4d1cd52c4a33891016bf341057cc5f8c8ca2b
hierarchies/imagenet.json 55570 c1ac17ac701c9ef4a756b6f35395219f29cc90ab8c301485edcf5a203018b8c0
hierarchies/cifar100.json 1798 c127f0e3f9026fc059cf08ff06ff192ade9d0d10a121fb12cd0ce316e2ddf2ab
splits/imagenet_val/train_ids.pt 280753 309212f696945b852721c67d7dce1bf767722351c1abe5c6ec18260037ae28c7
splits/imagenet_val/val_ids.pt 40747 88fec09a4e4f208eed26c1332c7039a5b99bf900f127c8dfdb36a78d2bbac85b
splits/imagenet_val/test_ids.pt 80750 e7c35bff260248dcfe34203c880f0f16502a45c73a3cbaaf440198c9a79823a1
splits/places365_val/train_ids.pt 205105 703f17d36fb4e2aaa014939554d16c2ede57782fe95f0343022adfd34a3259f5
splits/places365_val/val_ids.pt 29931 e08383973744275fecd1f9c4efdd1d8e9d9a20ec2aefa990b0acb96a334ad7b9
splits/places365_val/test_ids.pt 59118 737439e5244482de6a8e009b742713b43432c8e5434b8e5bb98e09cddc06eeba
splits/cifar100_val/train_ids.pt 56753 0528c7ad970ee1ad3511ce89ba116aa287771dfcca0bc890955e6a16d3a77cfe
splits/cifar100_val/val_ids.pt 8747 f6b878e0efb38cc2cc0abf21ce92ad478db7806c8fefbc145fdf74fbb85a16a9
splits/cifar100_val/test_ids.pt 16750 943c7188eae08fa3b5145a5ca1c46e3d8851668e0c644c00b938edfd27a89d8a
"""


def _where(name: str) -> str:
    """The path of a published file on GitHub."""
    kind, _, file = name.partition("/")
    if file in ("3k.txt", "10k.txt", "20k.txt"):
        return f"{_DISSECT}/{file}"
    if kind == "splits":
        return f"{_LE}/data_splits/{file}"
    named = {
        "concepts": file,
        "classes": f"{file[:-4]}_labels_clean.txt",
        "hierarchies": f"{file[:-5]}_superclass_to_ids.json",
    }
    return f"{_LE}/concept_sets/{named[kind]}"


FILES: dict[str, tuple[str, int, str]] = {
    name: (_where(name), int(size), sha256) for name, size, sha256 in map(str.split, _LISTED.split("\n")[1:-1])
}
"""Path under $NEURONX_DATA -> where it is on GitHub, bytes, sha256."""


def published(name: str, instead: str) -> Path:
    """The local path of a published file, fetched into `$NEURONX_DATA` unless it is there already.

    Args:
        name: Its path under `$NEURONX_DATA`, a key of `FILES`.
        instead: What the user can do without a network, such as "take a list of your own with concepts=file".

    Raises:
        UserError: If it cannot be fetched, or what came is not what was published.
    """
    if name not in FILES:
        raise unknown("published file", name, FILES)
    (where, size, sha256), path = FILES[name], data_root() / name
    return fetch(f"https://raw.githubusercontent.com/{where}", path, size, sha256, f"or {instead}")


def published_for(kind: str, data: str, instead: str) -> Path:
    """The `classes` or `hierarchies` of a data set, by its name up to the first "_" (imagenet of imagenet_val)."""
    key = data.split("_")[0]
    have = {Path(name).stem: name for name in FILES if name.startswith(f"{kind}/")}
    if key not in have:
        raise UserError(f"No {kind} are published for `{data}`, only for {', '.join(have)}: {instead}.")
    return published(have[key], instead)
