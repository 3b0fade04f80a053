from dataclasses import replace

from neuronx.metrics.captions import CaptionScores
from neuronx.report.caption_scores import caption_table, write_caption_scores

ROW = CaptionScores(n=12, bleu=(0.5, 0.25, 0.125, 0.0625), rouge1=0.4, rouge2=0.2, rougel=0.3)


def test_the_table_shows_percents_and_bert_only_where_it_is():
    text = caption_table({"people": ROW, 'always "[dogs]"': ROW}, "Agreement")
    assert text.startswith("Agreement") and "BERTScore" not in text and '"[dogs]"' in text
    assert text.splitlines()[2].split() == ["people", "50.0", "25.0", "12.5", "6.2", "40.0", "20.0", "30.0", "12"]
    judged = caption_table({"a": replace(ROW, bert=0.37), "b": ROW})
    assert "BERTScore" in judged and "37.0" in judged and "—" in judged


def test_the_file_holds_every_number(tmp_path):
    path = write_caption_scores(tmp_path / "agreement.csv", {"people": ROW})
    header, line = path.read_text().splitlines()
    assert header == "captions,n,BLEU-1,BLEU-2,BLEU-3,BLEU-4,ROUGE-1,ROUGE-2,ROUGE-L,BERTScore"
    assert line == "people,12,0.5,0.25,0.125,0.0625,0.4,0.2,0.3,"
