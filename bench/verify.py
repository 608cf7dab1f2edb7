"""A cheap model first, float32 after: how often the winner stays, what it saves (docs/verify.md).

    python bench/verify.py contexts FILE... [--contexts 100000] [--cheap int8]
    python bench/verify.py lists FILE... [--cheap int8] [--margins 0.5 1 2] [--rounds 3]

FILE is a request file of bench/README.md or an n-best file of docs/nbest.md. "contexts" makes
contexts of all beginnings of the files' texts, each with a word that follows it there and the words
beside that in the alphabet, and asks both models for the likeliest. "lists" times the best text of
every list; "demo" as a FILE stands for the demo's 60 lists and takes the weights of --weights.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmfusion
from lmfusion.verified import needed_margins
from rich.progress import track

MARGINS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # nats
BESIDE = 2  # words of the alphabet to either side
CONTEXTS_A_CALL = 500
Lists = list[list[str]]
Bases = list[list[float]] | None
Asked = tuple[Lists, Bases, dict[str, float]]


def lists_of(path: str) -> tuple[Lists, Bases]:
    """Lists of texts, each text once; base scores where there are some."""
    if path == "demo":
        return demo_lists()
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    if "nbest" in lines[0]:
        return [list(dict.fromkeys(line["nbest"])) for line in lines], None
    if "texts" in lines[0]:
        return [list(dict.fromkeys(line["texts"])) for line in lines], None
    rows = {tuple(f"{context} {word}".strip() for word in dict.fromkeys(words)): None
            for line in lines for context, words in zip(line["contexts"], line["candidate_words"])
            if len(words) > 1}
    return [list(row) for row in rows], None


def demo_lists() -> tuple[Lists, Bases]:
    from lmfusion.default_model import cache_folder
    from lmfusion.demo.utterances import sentences, utterances
    from lmfusion.demo.workloads import whole_text
    spoken = list(utterances([*sentences("test"), *sentences("tuning")], cache_folder() / "demo"))
    return ([[whole_text(one.text) for one in each.recognition.hypotheses] for each in spoken],
            [[one.score for one in each.recognition.hypotheses] for each in spoken])


def contexts_of(lists: Lists, count: int) -> Lists:
    """`count` lists of a beginning with words after it, in an order of chance."""
    generator = random.Random(0)
    beginnings = dict.fromkeys((" ".join(words[:end]), words[end])
                               for texts in lists for text in texts for words in [text.split()]
                               for end in range(len(words)))
    alphabet = sorted({word for _, word in beginnings})
    place = {word: index for index, word in enumerate(alphabet)}
    made: dict[tuple[str, ...], None] = {}
    pairs = list(beginnings)
    while len(made) < count:
        context, word = generator.choice(pairs)
        if len(made) >= len(pairs) / 2:  # another word of the files
            word = generator.choice(alphabet)
        at = max(0, place[word] - BESIDE)
        beside = alphabet[at:at + 2 * BESIDE + 1]
        made[tuple(f"{context} {other}".strip() for other in beside)] = None
    return sorted(map(list, made))  # neighbours share what is computed


def agreement(arguments: argparse.Namespace) -> None:
    lists = contexts_of([texts for path in arguments.files for texts in lists_of(path)[0]],
                        arguments.contexts)
    exact, cheap = scorers(arguments)
    needed: list[float] = []
    for begin in track(range(0, len(lists), CONTEXTS_A_CALL), description="contexts"):
        needed += needed_margins(cheap, exact, lists[begin:begin + CONTEXTS_A_CALL], weight=1.0,
                                 word_insertion_bonus=0.0)
    beginnings = {one[0].rpartition(" ")[0] for one in lists}
    print(f"\n{arguments.cheap}: {len(lists):,} contexts with {2 * BESIDE + 1} words, "
          f"{len(beginnings):,} beginnings\n\n| margin, nats | winner lost | kept |\n|---|---|---|")
    for margin in MARGINS:
        lost = sum(one > margin for one in needed)
        print(f"| {margin} | {lost:,} | {100 * (1 - lost / len(needed)):.3f} % |")
    print(f"\nlargest needed: {max(needed):.3f} nats")


def scorers(arguments: argparse.Namespace) -> tuple[lmfusion.LMFusionScorer,
                                                    lmfusion.LMFusionScorer]:
    model = lmfusion.default_model()
    return (lmfusion.LMFusionScorer(model, casing="sentence"),
            lmfusion.LMFusionScorer(model, casing="sentence", compute=arguments.cheap))


def speed(arguments: argparse.Namespace) -> None:
    exact, cheap = scorers(arguments)
    for path in arguments.files:
        lists, base = lists_of(path)
        for weight, bonus in arguments.weights if base else [(1.0, 0.0)]:
            weights = {"weight": weight, "word_insertion_bonus": bonus}
            asked: Asked = (lists, base, weights)
            verified = {f"verified, {margin:g} nats": best(
                lmfusion.Verified(cheap, exact, margin), asked) for margin in arguments.margins}
            systems = {"float32, all": every(exact, lists), f"{arguments.cheap}, all":
                       every(cheap, lists), "float32, best": best(exact, asked),
                       f"{arguments.cheap}, best": best(cheap, asked), **verified}
            if arguments.best_only:
                systems = {name: run for name, run in systems.items() if "all" not in name}
            expected = [one.best[0].index for one in exact.best(lists, base, **weights)]
            print(f"\n{path}: {len(lists)} lists, {sum(map(len, lists)):,} texts, weight "
                  f"{weight:g}, bonus {bonus:g}\n\n| | seconds | float32 tokens | "
                  f"{arguments.cheap} tokens | winner lost |\n|---|---|---|---|---|")
            for name, row in measured(systems, exact, cheap, arguments.rounds):
                lost = "" if "all" in name else sum(
                    one.best[0].index != index for one, index in zip(row["found"], expected))
                print(f"| {name} | {row['seconds']:.3f} | {row['exact']:,} | {row['cheap']:,} | "
                      f"{lost} |", flush=True)


def every(scorer: lmfusion.LMFusionScorer, lists: Lists) -> Callable[[], object]:
    return lambda: scorer.score_texts([text for row in lists for text in row])


def best(scorer: lmfusion.LMFusionScorer | lmfusion.Verified,
         asked: Asked) -> Callable[[], object]:
    lists, base, weights = asked
    return lambda: scorer.best(lists, base, **weights)


def measured(systems: dict[str, Callable[[], object]], exact: lmfusion.LMFusionScorer,
             cheap: lmfusion.LMFusionScorer, rounds: int) -> Iterator[tuple[str, dict]]:
    """Each from empty caches; in turn, the median of the rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    rows: dict[str, dict] = {}
    for _ in range(rounds):
        for name, run in systems.items():
            for scorer in (exact, cheap):
                scorer.clear_cache()
                scorer.reset_stats()
            start = time.perf_counter()
            found = run()
            seconds[name].append(time.perf_counter() - start)
            rows[name] = {"found": found, "exact": exact.stats().tokens_computed,
                          "cheap": cheap.stats().tokens_computed}
    for name, row in rows.items():
        yield name, {**row, "seconds": sorted(seconds[name])[rounds // 2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cheap", default="int8", choices=("int8", "int4", "bfloat16"))
    commands = parser.add_subparsers(required=True)
    for name, command in (("contexts", agreement), ("lists", speed)):
        one = commands.add_parser(name)
        one.add_argument("files", nargs="+")
        one.set_defaults(command=command)
        if name == "contexts":
            one.add_argument("--contexts", type=int, default=100_000)
        else:
            one.add_argument("--margins", type=float, nargs="+", default=[0.5, 1.0, 2.0])
            one.add_argument("--rounds", type=int, default=3)
            one.add_argument("--best-only", action="store_true", help="leave out scoring of all")
            one.add_argument("--weights", default=[(2.5, 25.0), (5.0, 0.0), (10.0, 20.0)],
                             type=lambda pairs: [tuple(map(float, pair.split("/")))
                                                 for pair in pairs.split(",")],
                             help="of the model and a word, as 2.5/25,5/0")
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
