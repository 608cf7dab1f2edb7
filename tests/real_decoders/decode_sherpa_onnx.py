"""The search of sherpa-onnx's CTC recognisers, whose lattices `scorer.best_path` searches.

sherpa-onnx takes no language model but an ONNX file of its own form, and gives one text and no list
(`check_its_interface` looks whether that is still so). Its search over a graph of words
(`ctc_graph`) is the library kaldi-decoder, which PyPI has by itself, with lattices: here that runs
on a graph of letters and words, as sherpa-onnx's HL.fst.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import kaldifst
import sherpa_onnx
from emissions import BLANK, SPACE, UNITS, lexicon
from kaldi_decoder import (
    DecodableCtc,
    FasterDecoder,
    FasterDecoderOptions,
    LatticeSimpleDecoder,
    LatticeSimpleDecoderConfig,
)
from lmfusion import LMFusionScorer, lattice
from trial import ENDINGS, Trial

WORDS = ["<eps>", *lexicon()]
LATTICE_BEAM = 8.0
MAX_TOKENS = 1000  # of a sentence; what is best so far is taken then
WEIGHT, BONUS = 1.0, 3.0  # of log p and a word; no others were tried


def words_graph() -> kaldifst.StdVectorFst:
    """CTC's rules and the lexicon as one graph: units + 1 in, words out; a space between words."""
    graph = kaldifst.StdVectorFst()
    blank, space = UNITS.index(BLANK), UNITS.index(SPACE)

    def node(unit: int) -> tuple[int, int]:
        """Two states: the unit was just heard, and a blank after it."""
        heard, after = graph.add_state(), graph.add_state()
        graph.add_arc(heard, kaldifst.StdArc(unit + 1, 0, 0.0, heard))
        graph.add_arc(heard, kaldifst.StdArc(blank + 1, 0, 0.0, after))
        graph.add_arc(after, kaldifst.StdArc(blank + 1, 0, 0.0, after))
        return heard, after

    def lead(source: tuple[int, int], last: int, target: tuple[int, int], unit: int,
             word: int = 0) -> None:
        """The unit is heard; where it was heard last, only after a blank."""
        for state in source if last != unit else source[1:]:
            graph.add_arc(state, kaldifst.StdArc(unit + 1, word, 0.0, target[0]))

    root = node(space)
    graph.start = root[1]
    end = graph.add_state()
    graph.set_final(end, 0.0)
    nodes = {"": root}
    for index, word in enumerate(WORDS[1:], 1):
        for size in range(1, len(word) + 1):
            if word[:size] not in nodes:
                nodes[word[:size]] = node(UNITS.index(word[size - 1]))
                last = UNITS.index(word[size - 2]) if size > 1 else space
                lead(nodes[word[:size - 1]], last, nodes[word[:size]], UNITS.index(word[size - 1]))
        lead(nodes[word], UNITS.index(word[-1]), root, space, index)
        for state in nodes[word]:
            graph.add_arc(state, kaldifst.StdArc(0, index, 0.0, end))
    return graph


def check_its_interface(trial: Trial) -> None:
    """That nothing better can be had from sherpa-onnx itself; if it can now, this should use it."""
    result = {name for name in dir(sherpa_onnx.lib._sherpa_onnx.OfflineRecognitionResult)
              if not name.startswith("_")}
    trial.expect("sherpa-onnx gives one text and no n-best list",
                 "text" in result and not any("best" in name for name in result))


def main() -> None:
    trial = Trial("sherpa-onnx", __doc__, beside="kaldi-decoder", noise=2.0)
    check_its_interface(trial)
    weight = WEIGHT if trial.weight is None else trial.weight
    bonus = BONUS if trial.bonus is None else trial.bonus
    graph, handed = words_graph(), []

    def own_answer(decodable: DecodableCtc) -> str:
        search = FasterDecoder(graph, FasterDecoderOptions())
        search.decode(decodable)
        _, best = search.get_best_path()
        labels = [int(fields[3]) for line in str(best).splitlines()
                  if len(fields := line.split()) > 3]
        return " ".join(WORDS[label] for label in labels if label)

    def lattice_of(decodable: DecodableCtc) -> lattice.Lattice:
        search = LatticeSimpleDecoder(graph, LatticeSimpleDecoderConfig(lattice_beam=LATTICE_BEAM))
        search.decode(decodable)
        _, found = search.get_raw_lattice()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "lattice")
            path.write_text(f"utterance\n{found}\n")
            return lattice.read(path, format="kaldi",
                                symbols={word: index for index, word in enumerate(WORDS)})

    def decode(scorer: LMFusionScorer | None) -> list[str]:
        heard = []
        for log_probs in trial.spoken:
            decodable = DecodableCtc(log_probs.numpy())
            if scorer is None:
                heard.append(own_answer(decodable))
                continue
            found = scorer.best_path(lattice_of(decodable), weight=weight,
                                     word_insertion_bonus=bonus, endings=ENDINGS,
                                     max_tokens=MAX_TOKENS)
            heard.append(found.paths[0].text)
            handed.extend((path.text, path.log_prob) for path in found.paths)
        return heard

    trial.measure("LatticeSimpleDecoder, best_path", decode, lambda: handed)
    trial.end()


if __name__ == "__main__":
    main()
