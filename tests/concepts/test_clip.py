"""CLIPs through the real open_clip, with a tiny random model in a file."""

import json
import time

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from neuronx.concepts import encoders
from neuronx.concepts.clip import Clip, ClipConcepts
from neuronx.concepts.words import Words
from neuronx.data.in_memory import InMemoryProbe
from neuronx.errors import UserError

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PHRASES = ("a red dog", "null", "sky")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny architecture known to open_clip as `tiny-for-tests`, and its weights in a file."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny-for-tests.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-for-tests.json")
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-for-tests").state_dict(), folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


@pytest.fixture
def clip(weights):
    return Clip("tiny-for-tests", str(weights), a=20, b=0.1)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(40, 50), (32, 32), (61, 37)] * 7
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture
def probe(pictures):
    return InMemoryProbe(pictures, labels=[i % 3 for i in range(21)], class_names=("dog", "cat", "sky"))


def test_embeddings_equal_open_clips_own(clip, probe, pictures, weights, trainer):
    model, _, transform = open_clip.create_model_and_transforms("tiny-for-tests", str(weights))
    model.eval()
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(one) for one in pictures]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer("tiny-for-tests")(list(PHRASES)), normalize=True)
    assert torch.allclose(clip.embed_images(probe, trainer), images, atol=1e-5)
    assert torch.allclose(clip.embed_texts(PHRASES), texts, atol=1e-5)


def test_concepts_are_the_sigmoid_of_cosines(clip, probe, trainer):
    concepts = ClipConcepts(clip, Words(["dog", "dog", "cat"])).concepts(probe, trainer)
    cosines = clip.embed_images(probe, trainer) @ clip.embed_texts(["dog", "cat"]).T
    assert concepts.names == ("dog", "cat") and concepts.scores.shape == (21, 2)
    assert torch.allclose(concepts.scores, torch.sigmoid(20 * (cosines + 0.1)), atol=1e-6)


def test_large_tables_lie_on_disk(clip, probe, trainer, monkeypatch, own_cache):
    made = ClipConcepts(clip, Words(["dog", "cat"]))
    small = made.concepts(probe, trainer).scores.clone()
    monkeypatch.setattr("neuronx.concepts.clip.IN_MEMORY", 10)
    assert torch.equal(made.concepts(probe, trainer).scores, small)


def test_the_judge_knows_every_phrase(clip, probe, trainer):
    judgement = clip.judge(PHRASES, probe, trainer)
    assert judgement.known.tolist() == [True] * 3 and clip.vocabulary(probe) is None
    assert clip.judge((), probe, trainer).scores(torch.arange(4)).shape == (4, 0)
    rows = torch.tensor([4, 0])
    cosines = clip.embed_images(probe, trainer)[rows] @ clip.embed_texts(PHRASES).T
    assert torch.equal(judgement.scores(rows), clip.scores(cosines))


def test_embeddings_are_made_once(clip, probe, trainer, monkeypatch):
    images, texts = clip.embed_images(probe, trainer), clip.embed_texts(PHRASES)
    monkeypatch.setattr(encoders.Encoder, "embed", lambda *_: pytest.fail("encoded again"))
    monkeypatch.setattr(encoders.ImageTower, "forward", lambda *_: pytest.fail("encoded again"))
    assert torch.equal(clip.embed_images(probe, trainer), images) and torch.equal(clip.embed_texts(PHRASES), texts)


def test_other_phrases_templates_or_weights_are_not_confused(clip, weights, tmp_path):
    texts = clip.embed_texts(PHRASES)
    assert torch.allclose(clip.embed_texts(PHRASES[::-1]), texts.flip(0), atol=1e-6)
    framed = Clip("tiny-for-tests", str(weights), template="a photo of {}.")
    assert torch.allclose(framed.embed_texts(["sky"]), clip.embed_texts(["a photo of sky."]), atol=1e-6)
    torch.manual_seed(1)
    save_file(open_clip.create_model("tiny-for-tests").state_dict(), tmp_path / "other.safetensors")
    assert not torch.allclose(Clip("tiny-for-tests", str(tmp_path / "other.safetensors")).embed_texts(PHRASES), texts)


def test_equal_clips_share_one_loaded_model(weights):
    one = Clip("tiny-for-tests", str(weights), name="explains")
    other = Clip("tiny-for-tests", str(weights), a=1, b=0)
    assert one.encoder is other.encoder and one.digest == other.digest and other.name == "tiny-for-tests"
    assert one.encoders == Clip("tiny-for-tests", str(weights), template="a {}").encoders == (one.encoder.identity,)
    assert not one.encoder.model.training


def test_calibration_fits_the_labels_of_train_and_val(weights, probe, trainer, monkeypatch):
    from sklearn.linear_model import LogisticRegression

    clip = Clip("tiny-for-tests", str(weights))
    with pytest.raises(UserError, match="no published sigmoid"):
        clip.scores(torch.zeros(1))
    rows = probe.split("train", "val")
    cosines = (clip.embed_images(probe, trainer) @ clip.embed_texts(probe.class_names).T)[rows]
    # Labels that follow the cosines, loosely: a random model sees nothing in real ones.
    noise = torch.randn(21, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    probe.labels = (clip.embed_images(probe, trainer) @ clip.embed_texts(probe.class_names).T + noise).argmax(1)
    truth = torch.nn.functional.one_hot(probe.labels, 3)[rows]
    fitted = clip.calibrate(probe, trainer)
    model = LogisticRegression(C=1e12, tol=1e-10).fit(cosines.reshape(-1, 1).numpy(), truth.flatten().numpy())
    assert fitted.a == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert fitted.calibrate(probe, trainer) is fitted
    monkeypatch.setattr("neuronx.concepts.clip.fit_sigmoid", lambda *_: pytest.fail("fitted again"))
    assert clip.calibrate(probe, trainer) == fitted


def test_superclasses_of_many_classes_take_no_part_in_calibration(weights, pictures, trainer, monkeypatch):
    classes = tuple("abcdefghij")
    superclasses = {"entity": tuple(range(4)), "animal": (4, 5, 6)}  # of more than .3 of the classes, and of .3
    labels = [i % 10 for i in range(21)]
    probe = InMemoryProbe(pictures, labels=labels, class_names=classes, hierarchy=superclasses)
    fitted = []
    monkeypatch.setattr("neuronx.concepts.clip.fit_sigmoid", lambda _, shown: fitted.append(shown) or (1.0, 0.0))
    Clip("tiny-for-tests", str(weights)).calibrate(probe, trainer)
    rows = torch.tensor(labels)[probe.split("train", "val")]
    expected = torch.cat([rows[:, None] == torch.arange(10), ((rows >= 4) & (rows < 7))[:, None]], 1)
    assert sorted(fitted[0].T.tolist()) == sorted(expected.T.tolist())


def test_calibration_needs_labels(weights, pictures, trainer):
    with pytest.raises(UserError, match="have no labels"):
        Clip("tiny-for-tests", str(weights)).judge(["dog"], InMemoryProbe(pictures), trainer)


def test_published_sigmoids():
    for model, a, b in (
        ("ViT-SO400M-14-SigLIP-384", 58, -0.13),
        ("ViT-L-16-SigLIP-384", 60, -0.09),
        ("ViT-L-14-336", 58, -0.25),
    ):
        clip = Clip.published(model)
        assert (clip.a, clip.b) == (a, b)
        assert clip.scores(torch.tensor([-b])).item() == pytest.approx(0.5)
    with pytest.raises(UserError, match="no published CLIP `ViT-L-14`"):
        Clip.published("ViT-L-14")


def test_pictures_of_another_domain_are_refused(clip, pictures, trainer):
    with pytest.raises(UserError, match=r"knows natural pictures and cannot see those of `memory`, which are shapes"):
        clip.embed_images(InMemoryProbe(pictures, domain="shapes"), trainer)
    with pytest.raises(UserError, match="which are tensors"):
        clip.embed_images(InMemoryProbe(torch.rand(10, 3, 8, 8)), trainer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "ViT-B-61", "pretrained": "openai"}, "no open_clip model `ViT-B-61`. Nearest: ViT-B-"),
        ({"model": "ViT-B-32", "pretrained": "openia"}, "no tag or file of ViT-B-32 `openia`. Nearest: openai"),
        ({"model": "ViT-B-32", "pretrained": "openai", "weights": "/no/file.pt"}, "no weights file /no/file.pt"),
    ],
)
def test_names_that_do_not_exist(options, message):
    with pytest.raises(UserError, match=message):
        _ = Clip(**options).encoder


def test_files_that_are_no_weights(weights, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"w\.pt do not load into tiny-for-tests"):
        _ = Clip("tiny-for-tests", str(path)).encoder
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"w\.pt do not load into tiny-for-tests"):
        _ = Clip("tiny-for-tests", str(path)).encoder


def test_a_tags_file_keeps_the_tags_preprocessing(weights, pictures, monkeypatch):
    """SigLIP squashes and has means of .5: a file in place of the download must not change that."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    tag = open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli")
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, pretrained: tag)
    transform = Clip("tiny-for-tests", "webli", weights=str(weights)).encoder.transform
    wanted = {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    reference = image_transform_v2(PreprocessCfg(size=32, **wanted), is_train=False)
    for picture in pictures[:3]:
        assert torch.allclose(transform(picture), reference(picture), atol=1e-6)


def test_no_network_is_said_within_seconds(monkeypatch, tmp_path):
    def unreachable(url, hint):
        raise UserError(f"{url} cannot be reached. Without a network, {hint}.")

    monkeypatch.setattr("neuronx.store.download.check_reachable", unreachable)
    monkeypatch.setattr("neuronx.concepts.encoders.check_reachable", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"give the weights' file with clip\.weights=FILE"):
        _ = Clip("ViT-B-16", "openai").encoder
    assert time.monotonic() - start < 5


def test_a_missing_tokenizer_folder(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer"):
        _ = Clip("ViT-B-16-SigLIP", "webli", tokenizer=str(tmp_path)).encoder
