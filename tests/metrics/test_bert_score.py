import pytest
import torch

from neuronx.errors import UserError
from neuronx.metrics.bert_score import BertScore
from neuronx.metrics.captions import score_captions

CAPTIONS = ["the sky", "red dots", "grass", ""]
SAID = [["blue", "the sky"], ["red dots"], ["the blue grass", "sky"], ["red"]]


def test_a_bert_that_is_not_there_names_the_way_out(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"config\.json"):
        BertScore(tmp_path)(["a"], [["a"]])
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="bert=DIR"):
        BertScore("nobody/no-such-model")(["a"], [["a"]])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT with random weights that knows six words."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "dots", "sky", "the", "grass"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(tokens), **sizes)).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_likeness_is_one_and_order_does_not_matter(bert, tmp_path):
    found = BertScore(bert, idf=False)(CAPTIONS, SAID)
    assert found[:2].tolist() == pytest.approx([1, 1], abs=1e-5) and found[2] < 1 and found[3] == 0
    order = [2, 3, 0, 1]
    again = BertScore(bert, idf=False)([CAPTIONS[i] for i in order], [SAID[i] for i in order])
    assert again.tolist() == pytest.approx(found[order].tolist(), abs=1e-5)
    assert score_captions(CAPTIONS, SAID, BertScore(bert)).bert == pytest.approx(0.7, abs=0.1)
    (tmp_path / "baseline.csv").write_text("LAYER,P,R,F\n0,0,0,0\n2,.5,.5,.5\n")
    assert BertScore(bert, idf=False, baseline=tmp_path / "baseline.csv")(CAPTIONS, SAID)[3] == -1
    with pytest.raises(UserError, match="layers 0 to 2"):
        BertScore(bert, layer=3)(CAPTIONS, SAID)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [None, 1])
def test_a_pair_scores_as_in_torchmetrics(bert, layer):
    from torchmetrics.functional.text.bert import bert_score

    for text, given in zip(CAPTIONS[:3], SAID[:3], strict=True):
        for other in given:
            theirs = bert_score([text], [other], model_name_or_path=str(bert), num_layers=layer, truncation=True)
            assert BertScore(bert, layer, idf=False)([text], [[other]]).item() == pytest.approx(
                float(theirs["f1"]), abs=1e-5
            )


@pytest.mark.slow
def test_rare_words_count_more(bert):
    said = [["the sky"], ["the grass"], ["the dots"]]
    plain, weighted = (BertScore(bert, idf=idf)(["the red"] * 3, said).mean() for idf in (False, True))
    assert weighted < plain, "`the` is in every reference and says nothing"
