"""Which world each part sees. Training, held-out and probe pictures never share a seed; a test checks it."""

PROBE = 7
"""The pictures on which units are explained and scored."""
PROBE_OF_PLACES = 8
"""The same in the world of places."""

RESNET, RESNET_TEST = 1001, 1501
VIT, VIT_TEST = 1002, 1502
EXPLAINER, EXPLAINER_TEST = 2001, 2501
JUDGE, JUDGE_TEST = 3001, 3501
GAN, GAN_TEST = 4001, 4501
ALEXNET, ALEXNET_TEST = 1003, 1503
PLACES_RESNET, PLACES_RESNET_TEST = 1011, 1511
PLACES_ALEXNET, PLACES_ALEXNET_TEST = 1013, 1513
PLACES_GAN, PLACES_GAN_TEST = 4011, 4511
SPURIOUS, SPURIOUS_TEST = 1005, 1505

ALL = {
    "probe": PROBE,
    "probe of places": PROBE_OF_PLACES,
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
    "shapes_alexnet": ALEXNET,
    "shapes_alexnet, held out": ALEXNET_TEST,
    "places_resnet": PLACES_RESNET,
    "places_resnet, held out": PLACES_RESNET_TEST,
    "places_alexnet": PLACES_ALEXNET,
    "places_alexnet, held out": PLACES_ALEXNET_TEST,
    "places_gan": PLACES_GAN,
    "places_gan, held out": PLACES_GAN_TEST,
    "shapes_spurious": SPURIOUS,
    "shapes_spurious, held out": SPURIOUS_TEST,
}
"""Every part of the embedded world to the seed of its pictures."""
