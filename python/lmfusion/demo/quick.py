"""`lmfusion demo --quick`: one sentence, from speech to the rescored text and why."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from lmfusion import LMFusionScorer, nbest
from lmfusion.cli.output import note, print_json
from lmfusion.default_model import cache_folder, default_model
from lmfusion.demo.rescoring import Weights
from lmfusion.demo.utterances import sentences, utterances
from lmfusion.demo.workloads import whole_text

SENTENCE = 0  # of the test set
WEIGHTS = Weights(2.5, 25.0)  # what the whole demo finds on the tuning set
SHOWN = 5


def run_quick_demo(*, json_: bool = False) -> None:
    """Speaks, recognises and rescores one sentence; prints its list and the words' log p.

    Args:
        json_: print JSON.

    Raises:
        SpeechError: flite is not installed.
        ExportError: the default model cannot be built.
    """
    out = Console(highlight=False, soft_wrap=True)
    note("opening the default model; the first time it is exported, about half a minute")
    scorer = LMFusionScorer(default_model(), casing="sentence")
    note("speaking one sentence with flite, recognising it with PocketSphinx: seconds")
    reference = sentences("test")[SENTENCE]
    [utterance] = utterances([reference], cache_folder() / "demo")
    hypotheses = utterance.recognition.hypotheses
    [parts] = nbest.rank([[(whole_text(one.text), one.score) for one in hypotheses]], scorer,
                         weight=WEIGHTS.weight,
                         word_insertion_bonus=WEIGHTS.word_insertion_bonus)
    texts = [whole_text(utterance.recognition.best), parts[0].text]
    if json_:
        print_json({"said": reference, "recognised": utterance.recognition.best,
                    "rescored": parts[0].text.rstrip("."), "weights": asdict(WEIGHTS),
                    "hypotheses": [{"text": row.text, "score": row.score, "log_prob": row.log_prob,
                                    "words": row.words, "total": row.total,
                                    "place_before": row.index + 1} for row in parts],
                    "words": dict(zip(texts, scorer.word_log_probs(texts)))})
        return
    out.print(f"\n  said:        {reference}\n  recognised:  {utterance.recognition.best}\n"
              f"  rescored:    {parts[0].text.rstrip('.')}\n")
    _print_list(out, parts[:SHOWN], len(parts))
    _explain(out, scorer, texts)


def _print_list(out: Console, rows: list[nbest.Ranked], of: int) -> None:
    out.print(f"the {len(rows)} best of {of} texts: total = recogniser + {WEIGHTS.weight:g} * log "
              f"p + {WEIGHTS.word_insertion_bonus:g} * words\n")
    out.print("  recogniser    log p  words     total  place before  text")
    for row in rows:
        out.print(f"  {row.score:10.1f}  {row.log_prob:7.2f}  {row.words:5}  {row.total:8.1f}  "
                  f"{row.index + 1:12}  {row.text}", markup=False)


def _explain(out: Console, scorer: LMFusionScorer, texts: list[str]) -> None:
    """log p of every word of texts, and how little of them was computed."""
    scorer.reset_stats()
    out.print("\nwhy: log p of every word after all before it, nats")
    for row in scorer.word_log_probs(texts):
        words = "  ".join(f"{word} {log_prob:.1f}" for word, log_prob in row)
        out.print(f"  {sum(log_prob for _, log_prob in row):7.2f}  {words}", markup=False)
    stats = scorer.stats()
    out.print(f"\n{stats.tokens_requested} tokens were asked for to show this, "
              f"{stats.tokens_computed} of them computed: the others were in the tree.")
