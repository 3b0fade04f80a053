"""Which world each part sees. Training, held-out and probe pictures never share a seed; a test checks it."""

PROBE = 7
"""The pictures on which units are explained and scored."""

RESNET, RESNET_TEST = 1001, 1501
VIT, VIT_TEST = 1002, 1502
EXPLAINER, EXPLAINER_TEST = 2001, 2501
JUDGE, JUDGE_TEST = 3001, 3501
GAN, GAN_TEST = 4001, 4501

ALL = {
    "probe": PROBE,
    "shapes_resnet": RESNET,
    "shapes_resnet, held out": RESNET_TEST,
    "shapes_vit": VIT,
    "shapes_vit, held out": VIT_TEST,
    "shapes_explainer": EXPLAINER,
    "shapes_explainer, held out": EXPLAINER_TEST,
    "shapes_judge": JUDGE,
    "shapes_judge, held out": JUDGE_TEST,
    "shapes_gan": GAN,
    "shapes_gan, held out": GAN_TEST,
}
"""Every part of the embedded world to the seed of its pictures."""
