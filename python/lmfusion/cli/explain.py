"""`lmfusion explain`: one candidate word, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmfusion import _core
from lmfusion.cli.output import AsJson, note, print_json
from lmfusion.cli.scorer_options import ChosenScorer, scores


@scores(without=())
def explain(scorer: ChosenScorer,
            context: Annotated[str, typer.Argument(metavar="CONTEXT", help='may be ""')],
            word: Annotated[str, typer.Argument(metavar="WORD")],
            html: Annotated[Path | None, typer.Option(
                "--html", metavar="FILE", help="write a picture too, as one HTML file")] = None,
            json_: AsJson = False) -> None:
    """Show how a word is scored after a context: a line a token, then the sums."""
    opened = scorer.open()
    found = opened.explain(context, word)
    facts = _facts(found, context, word, opened.weight, opened.word_insertion_bonus)
    if html is not None:
        from lmfusion.reports import write_report
        write_report("explain.html", html, facts)
        note(f"the picture: {html}")
    if json_:
        print_json(facts)
    else:
        _print(found, opened.weight, opened.word_insertion_bonus)


def _print(found: _core.Explanation, weight: float, bonus: float) -> None:
    print(f"text: {found.text!r}")
    print(f"{'id':>8}  {'piece':<20}{'log p, nats':>12}  state")
    for token in found.tokens:
        log_prob = f"{token.log_prob:.4f}" if token.scored else "context"
        state = "from the cache" if token.reused else ""
        print(f"{token.id:>8}  {token.piece!r:<20}{log_prob:>12}  {state}".rstrip())
    for token in found.subtracted:
        print(f"{token.id:>8}  {token.piece!r:<20}{-token.log_prob:>12.4f}  subtracted")
    if len(found.forms) > 1:
        print(f"log p(this form) = {found.log_prob:.4f} nats; the word may be any of")
        for form in found.forms:
            print(f"{form.log_prob:>42.4f}  {form.text!r}")
    print(f"log p(word | context) = {found.candidate_log_prob:.4f} nats")
    print(f"score = {weight:g} * log p + {bonus:g} = {found.score:.4f}; "
          f"{found.tokens_computed} tokens computed")


def _facts(found: _core.Explanation, context: str, word: str, weight: float,
           bonus: float) -> dict[str, Any]:
    def row(token: _core.Explanation.Token) -> dict[str, Any]:
        return {"id": token.id, "piece": token.piece, "scored": token.scored,
                "log_prob": token.log_prob if token.scored else None, "reused": token.reused}

    return {"context": context, "word": word, "text": found.text,
            "tokens": [row(token) for token in found.tokens],
            "subtracted": [{"id": token.id, "piece": token.piece, "log_prob": token.log_prob}
                           for token in found.subtracted],
            "forms": [{"text": form.text, "log_prob": form.log_prob} for form in found.forms],
            "log_prob": found.candidate_log_prob, "weight": weight,
            "word_insertion_bonus": bonus, "score": found.score,
            "tokens_computed": found.tokens_computed}
