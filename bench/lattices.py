"""Lattices beside n-best lists of the same recordings: word errors, tokens, what is proven.

    python bench/lattices.py [--recordings 200] [--long-lists 60] [--max-tokens N]

Sentences that the demo does not tune on are spoken by two voices of flite, and recognised by
PocketSphinx as the demo does. All rows use one set of weights. "list" rows are PocketSphinx's own
list and scores; "of the lattice" rows take the lattice's best texts by acoustics and n-gram.
Finished recordings are kept in a file, so a second run goes on where the first one ended. At last
all lattices are searched in one call, with as many tokens as scoring their lists took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jiwer
import lmfusion
from lmfusion.demo.lattices import NGRAM_WEIGHT, read_lattices
from lmfusion.demo.recognition import Recognition, decode, hypotheses_of, lattice_text_of
from lmfusion.demo.rescoring import word_errors
from lmfusion.demo.speech import add_pink_noise, noise_seed, speak
from lmfusion.demo.utterances import SNR_DB, Utterance, sentences
from lmfusion.demo.workloads import whole_text
from lmfusion.lattice import Lattice
from rich.progress import track
from sentences import SENTENCES

VOICES = ("slt", "rms")
DATA = Path(__file__).parents[1] / "examples" / "data"
WEIGHT, BONUS = 2.5, 25.0  # what the demo's tuning finds for PocketSphinx's lists
LIST, LONG_LIST = 60, 1000
Texts = list[tuple[str, float]]  # with the recogniser's score
Row = dict[str, Any]


def recordings() -> Iterator[tuple[str, str]]:
    """(sentence, voice)."""
    examples = [line.strip() for name in ("held_out", "tuning")
                for line in (DATA / f"{name}.txt").read_text().splitlines() if line.strip()]
    every = dict.fromkeys([*sentences("test"), *SENTENCES, *examples])
    return ((sentence, voice) for voice in VOICES for sentence in every)


def recognised(sentence: str, voice: str) -> tuple[Texts, str] | None:
    """PocketSphinx's list and lattice."""
    audio = add_pink_noise(speak(sentence, voice=voice), snr_db=SNR_DB, seed=noise_seed(sentence))
    decoder = decode(audio)
    if decoder.hyp() is None:
        return None
    own = [(one.text, one.score) for one in hypotheses_of(decoder, size=LIST)]
    return own, lattice_text_of(decoder)


def lattices_of(texts: Iterable[str]) -> Iterator[Lattice]:
    """With the n-gram's scores, one by one."""
    for lattice in read_lattices(Utterance("", Recognition("", (), text)) for text in texts):
        assert lattice is not None
        yield lattice


def of_list(scorer: lmfusion.LMFusionScorer, texts: Texts, reference: str) -> Row:
    """The best text by full scoring; the tokens that it takes from an empty cache."""
    before = scorer.stats()
    log_probs = scorer.score_texts([whole_text(text) for text, _ in texts])
    after = scorer.stats()
    best = max(zip(texts, log_probs), key=lambda one: one[0][1] + WEIGHT * one[1]
               + BONUS * len(one[0][0].split()))[0][0]
    # What one call finds in the cache would have been computed.
    tokens = sum(getattr(after, name) - getattr(before, name)
                 for name in ("tokens_computed", "tokens_reused"))
    oracle = min((text for text, _ in texts), key=lambda text: word_errors(reference, text))
    return {"text": best, "tokens": tokens, "oracle": oracle, "size": len(texts)}


def search(scorer: lmfusion.LMFusionScorer, rows: list[Row], max_tokens: int) -> Row:
    """The best path of every lattice, into its row; and what all of it took."""
    heard = [row for row in rows if "lattice_text" in row]
    scorer.clear_cache()
    scorer.reset_stats()
    begin = time.perf_counter()
    found = scorer.best_paths(
        lattices_of(row["lattice_text"] for row in heard), weight=WEIGHT,
        word_insertion_bonus=BONUS, endings=["."], ngram_weight=NGRAM_WEIGHT,
        max_tokens=max_tokens)
    seconds = time.perf_counter() - begin
    for row, one in zip(heard, found):
        row["lattice"] = {"text": one.paths[0].text, "proven": one.proven, "gap": one.gap,
                          "opened": one.work.paths_opened, "extended": one.work.paths_extended,
                          "scored": one.work.words_scored}
    stats = scorer.stats()
    return {"seconds": seconds, "tokens": stats.tokens_computed, "forwards": stats.forwards}


def texts_of(scorer: lmfusion.LMFusionScorer, lattice: Lattice, size: int) -> Texts:
    """The lattice's best texts without the language model."""
    found = scorer.best_path(lattice, n=size, weight=0.0, ngram_weight=NGRAM_WEIGHT,
                             word_insertion_bonus=0.0)
    return [(path.text, path.total) for path in found.paths]


def measure(scorer: lmfusion.LMFusionScorer, sentence: str, voice: str, long: bool) -> Row:
    row: Row = {"reference": sentence, "voice": voice}
    spoken = recognised(sentence, voice)
    if spoken is None:
        return row
    own, row["lattice_text"] = spoken
    [lattice] = lattices_of([row["lattice_text"]])
    texts = texts_of(scorer, lattice, LONG_LIST if long else LIST)
    row["1-best list"] = {"text": own[0][0], "tokens": 0, "oracle": own[0][0]}
    row["60-best list"] = of_list(scorer, own, sentence)
    row["60-best of the lattice"] = of_list(scorer, texts[:LIST], sentence)
    if long:
        row["1,000-best of the lattice"] = of_list(scorer, texts, sentence)
    return row


def report(rows: list[Row], work: Row) -> None:
    """A Markdown table, and what the lattices' search says of itself."""
    heard = [row for row in rows if "lattice" in row]
    long = [row for row in heard if "1,000-best of the lattice" in row]
    for title, some in (("all", heard), ("with long lists", long)):
        print(f"\n{len(some)} recordings, {title}\n\n| | WER | oracle | tokens |\n|---" + 3 * "|---"
              + "|")
        for name in [name for name in some[0] if isinstance(some[0][name], dict)
                     and all(name in row for row in some)] if some else ():
            tokens = (f"{sum(row[name]['tokens'] for row in some):,}" if "tokens" in some[0][name]
                      else f"{work['tokens']:,}" if some is heard else "")
            print(f"| {name} | {rate(some, name, 'text')} | {rate(some, name, 'oracle')} | "
                  f"{tokens} |")
    lattice = [row["lattice"] for row in heard]
    print(f"\nlattices: {work['seconds']:.1f} s with reading, {work['forwards']} forward passes; "
          f"proven: {sum(one['proven'] for one in lattice)} of {len(lattice)}\n"
          f"gaps: {[round(one['gap'], 1) for one in lattice if not one['proven']]}\n"
          f"words scored, sorted: {sorted(one['scored'] for one in lattice)}\n" + ", ".join(
              f"{name}: {sum(one[name] for one in lattice):,}"
              for name in ("opened", "extended", "scored")))


def rate(rows: list[Row], name: str, kind: str) -> str:
    """The word error rate of one column, where it has that kind of text."""
    texts = [row[name][kind] for row in rows if kind in row[name]]
    if len(texts) < len(rows):
        return ""
    return f"{100 * jiwer.wer([row['reference'] for row in rows], texts):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--long-lists", type=int, default=60,
                        help="recordings whose 1,000-best lists are scored too")
    parser.add_argument("--max-tokens", type=int,
                        help="of all searches; default: what scoring the 60-best lists took")
    parser.add_argument("--kept", type=Path, default=Path("out/lattices.jsonl"))
    arguments = parser.parse_args()
    arguments.kept.parent.mkdir(parents=True, exist_ok=True)
    kept = arguments.kept.read_text().splitlines() if arguments.kept.exists() else []
    rows = [json.loads(line) for line in kept]
    wanted = list(recordings())[:arguments.recordings]
    scorer = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    with arguments.kept.open("a") as file:
        for index in track(range(len(rows), len(wanted)), description="recordings"):
            rows.append(measure(scorer, *wanted[index], index < arguments.long_lists))
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    del rows[len(wanted):]
    tokens = sum(row["60-best list"]["tokens"] for row in rows if "lattice_text" in row)
    report(rows, search(scorer, rows, arguments.max_tokens or tokens))


if __name__ == "__main__":
    main()
