"""One static page for the units of a layer: what they were said to do, and the pictures to judge it by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuronx.store.atomic import write_atomic


@dataclass(frozen=True)
class Card:
    """One unit on the page.

    Attributes:
        name: As in tables, `layer4:12`.
        peaks: Activations on its exemplars, strongest first.
        threshold: Above which it is on.
        explanations: Method -> words.
        pictures: Files beside the page, the exemplars first.
    """

    name: str
    peaks: Sequence[float]
    threshold: float
    explanations: Mapping[str, str]
    pictures: Sequence[str]


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
 body { font: 15px/1.45 system-ui, sans-serif; color: #20222a; background: #f3f4f7; margin: 0 auto; padding: 1.5em;
        max-width: 1480px }
 h1 { font-size: 1.45em; margin: 0 } p { margin: .3em 0 1em; color: #5b606c }
 form { position: sticky; top: 0; padding: .6em 0; background: #f3f4f7 }
 input, select { font: inherit; padding: .25em .5em; border: 1px solid #c4c8d2; border-radius: 4px; background: #fff }
 input { width: 24em; max-width: 60% }
 article { background: #fff; border-radius: 6px; margin: 0 0 1em; padding: .9em 1.1em }
 h2 { font-size: 1.1em; margin: 0 } h2 small { color: #787c86; font-weight: normal; margin-left: .6em }
 dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em .9em; margin: .4em 0 } dd { margin: 0 }
 dt { color: #787c86 } img { max-width: 100%; vertical-align: top; margin: .4em .8em 0 0 }
</style>
<h1>{{ title }}</h1>
<p>{{ remark }}</p>
<form><input type="search" placeholder="find units or words" aria-label="find units or words">
<select aria-label="order"><option value="unit">by unit</option>
<option value="peak">strongest peak first</option></select>
</form>
<main>
{% for card in cards %}
<article data-unit="{{ loop.index0 }}" data-peak="{{ card.peaks[0] }}">
<h2>{{ card.name }}<small>peaks {{ "%.4g"|format(card.peaks[0]) }} to {{ "%.4g"|format(card.peaks[-1]) }}, on above {{
 "%.4g"|format(card.threshold) }}</small></h2>
{% if card.explanations %}
<dl>{% for method, words in card.explanations.items() %}<dt>{{ method }}</dt><dd>{{ words }}</dd>{% endfor %}</dl>
{% endif %}
{% for picture in card.pictures %}
<img loading="lazy" src="{{ picture }}" alt="{{ card.name }}, {{ picture }}">
{% endfor %}
</article>
{% endfor %}
</main>
<script>
const cards = [...document.querySelectorAll("article")], main = document.querySelector("main");
document.querySelector("input").oninput = e => cards.forEach(card => {
  card.hidden = !card.textContent.toLowerCase().includes(e.target.value.toLowerCase()) });
document.querySelector("select").onchange = e => main.append(...cards.sort((a, b) => e.target.value == "peak"
  ? b.dataset.peak - a.dataset.peak : a.dataset.unit - b.dataset.unit));
document.querySelector("form").onsubmit = () => false;
</script>
"""


def write_page(path: str | Path, title: str, remark: str, cards: Sequence[Card]) -> Path:
    """Writes the page; it opens without a network, can be searched, and sorted by unit or by peak."""
    from jinja2 import Environment

    made = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    return write_atomic(path, made.render(title=title, remark=remark, cards=cards).encode())
