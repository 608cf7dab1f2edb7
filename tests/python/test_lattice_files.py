"""Lattice files of every format, as the documentation of each writes them."""

from __future__ import annotations

import gzip
import math
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import lmfusion
import pytest
from lmfusion.lattice import (
    Lattice,
    LatticeError,
    confusion_network,
    read,
    read_all,
    with_ngram,
    word_of,
)
from test_lattice_search import all_paths

Texts = dict[str, tuple[float, float]]

# What every file below says: text -> (acoustic, n-gram) of its best path, nats.
EXPECTED: Texts = {"its fine": (-2.0, -3.0), "it's good": (-2.5, -2.0), "good": (-4.0, -1.0)}


def texts(lattice: Lattice) -> Texts:
    best: Texts = {}
    for arcs, end in all_paths(lattice):
        text = " ".join(word for arc in arcs if (word := word_of(arc.label)))
        parts = [(arc.acoustic, arc.ngram) for arc in arcs] + [lattice.finals[end]]
        acoustic, ngram = (math.fsum(column) for column in zip(*parts))
        best[text] = max((acoustic, ngram), best.get(text, (-math.inf, 0)), key=sum)
    return {text: pytest.approx(parts, abs=1e-6) for text, parts in best.items()}


def written(folder: Path, content: str, name: str = "u1.txt") -> Path:
    path = folder / name
    if name.endswith(".gz"):
        with gzip.open(path, "wt") as file:
            file.write(content)
    else:
        path.write_text(content)
    return path


def test_a_node_far_beyond_all_others_takes_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path, "0 400000000000 a a 0.5\n400000000000\n")
    with pytest.raises(LatticeError, match="has a node 400000000000, but only 1 arcs"):
        read(path)


@pytest.mark.parametrize("base", [None, 10.0])
@pytest.mark.parametrize("words_on", ["nodes", "links"])
def test_slf(tmp_path: Path, base: float | None, words_on: str) -> None:
    unit = math.log(base) if base else 1.0
    nodes = ["!NULL", "its", r"it\'s", "fine", "good", "!NULL"]
    links = [(0, 1, -0.5, -2), (0, 2, -1, -1), (0, 4, -4, -0.5), (1, 3, -1.5, -1),
             (2, 4, -1.5, -0.5), (3, 5, 0, 0), (4, 5, 0, -0.5)]
    lines = ["# Header", "VERSION=1.0", "UTTERANCE=u1", *([f"base={base}"] if base else []),
             "lmname=x lmscale=2.0 wdpenalty=-1.0", f"N={len(nodes)} L={len(links)}"]
    for i, word in enumerate(nodes):
        lines.append(f"I={i} t={i / 10}" + (f" W={word}" if words_on == "nodes" else ""))
    for j, (start, end, acoustic, ngram) in enumerate(links):
        word = f" W={nodes[end]}" if words_on == "links" else ""
        lines.append(f"J={j} S={start} E={end}{word} v=0 a={acoustic / unit} l={ngram / unit}")
    lattice = read(written(tmp_path, "\n".join(lines) + "\n"))
    assert lattice.name == "u1" and texts(lattice) == EXPECTED
    assert {arc.times for arc in lattice.arcs if arc.label == "fine"} == {(0.1, 0.3)}


def test_the_word_of_a_start_node_is_said(tmp_path: Path) -> None:
    content = "VERSION=1.0\nN=2 L=1\nI=0 W=hello\nI=1 W=you\nJ=0 S=0 E=1 a=-1\n"
    assert list(texts(read(written(tmp_path, content)))) == ["hello you"]


FST = """0 1 7 1 0.5
0 2 7 2 1
0 4 9 4 4
1 3 8 3 1.5
2 4 8 4 1.5
3 5 0 0
4 5 0 0
5 0
"""
SYMBOLS = "<eps> 0\nits 1\nit's 2\nfine 3\ngood 4\n"


def of_one_weight(expected: Texts) -> Texts:
    return {text: (acoustic, 0.0) for text, (acoustic, _) in expected.items()}


@pytest.mark.parametrize("table", ["file", "words", "numbers"])
def test_openfst(tmp_path: Path, table: str) -> None:
    words = {line.split()[0]: int(line.split()[1]) for line in SYMBOLS.splitlines()}
    symbols = {"file": written(tmp_path, SYMBOLS, "words.txt"), "words": words,
               "numbers": {number: word for word, number in words.items()}}[table]
    lattice = read(written(tmp_path, FST), symbols=symbols)
    assert texts(lattice) == of_one_weight(EXPECTED) and lattice.name == "u1"
    assert texts(read(written(tmp_path, FST), symbols=symbols, ngram=True)) == {
        text: parts[::-1] for text, parts in of_one_weight(EXPECTED).items()}
    acceptor = "\n".join(" ".join(fields[:2] + fields[3:] if len(fields) > 2 else fields)
                         for fields in map(str.split, FST.splitlines()))
    named = acceptor.replace(" 0 ", " <eps> ")
    for content in (acceptor, named):
        assert texts(read(written(tmp_path, content), symbols=symbols, format="openfst",
                          acceptor=True)) == of_one_weight(EXPECTED)


def test_openfst_against_its_own_shortest_path(tmp_path: Path,
                                               scorer: lmfusion.LMFusionScorer) -> None:
    kaldifst = pytest.importorskip("kaldifst")
    draw = random.Random(5)
    for _ in range(10):
        lines = [f"{start} {end} 1 {draw.randrange(5)} {draw.randrange(40) / 8}"
                 for start in range(7) for end in range(start + 1, 8) if draw.random() < 0.6]
        lines += [f"{start} {start + 1} 3 4 5.5" for start in range(7)]
        content = "\n".join([*sorted(lines, key=lambda line: int(line.split()[0])), "7 0.25"])
        best = kaldifst.shortest_path(kaldifst.compile(content))
        _, _, words, weight = kaldifst.get_linear_symbol_sequence(best)
        lattice = read(written(tmp_path, content), symbols={0: "<eps>", 1: "a", 2: "b", 3: "c",
                                                            4: "d"})
        found = scorer.best_path(lattice, weight=0.0, word_insertion_bonus=0.0, n=10_000)
        assert found.paths[0].total == -weight.value
        assert "".join(" abcd"[word] for word in words) in {
            "".join(path.words) for path in found.paths if path.total == -weight.value}


K2 = """0 1 7 1 -0.5
0 2 7 2 -1
0 4 9 4 -4
1 3 8 3 -1.5
2 4 8 4 -1.5
3 5 -1 -1 0
4 5 -1 -1 0
5
"""


def test_k2(tmp_path: Path) -> None:
    symbols = written(tmp_path, SYMBOLS, "words.txt")
    assert texts(read(written(tmp_path, K2), symbols=symbols)) == of_one_weight(EXPECTED)
    without_aux = "\n".join(" ".join(fields[:2] + fields[3:] if len(fields) > 1 else fields)
                            for fields in map(str.split, K2.splitlines()))
    assert texts(read(written(tmp_path, without_aux), symbols=symbols)) == of_one_weight(EXPECTED)


COMPACT = """u1
0 1 1 2,0.5,3_4
0 2 2 1,1,3_5
0 4 4 0.5,4,6
1 3 3 1,1.5,7_7_8
2 4 4 0.5,1.5,9
3 0,0,
4 0.5,0,10

u2
0 1 4 0.25,1.25,1_1
1

"""
LATTICE = """u1
0 1 3 1 2,0.5
0 2 3 2 1,1
0 4 6 4 0.5,4
1 3 7 3 1,1.5
2 4 9 4 0.5,1.5
3
4 0.5,0

u2
0 1 1 4 0.25,1.25
1
"""


@pytest.mark.parametrize("content", [COMPACT, LATTICE])
@pytest.mark.parametrize("name", ["lat.txt", "lat.gz"])
def test_kaldi(tmp_path: Path, content: str, name: str) -> None:
    path = written(tmp_path, content, name)
    first, second = read_all(path, symbols=written(tmp_path, SYMBOLS, "words.txt"))
    assert (first.name, texts(first)) == ("u1", EXPECTED)
    assert (second.name, texts(second)) == ("u2", {"good": (-1.25, -0.25)})
    with pytest.raises(LatticeError, match="more than one"):
        read(path, symbols={1: "its", 2: "it's", 3: "fine", 4: "good"})


def binary(content: str, compact: bool) -> bytes:
    """A text archive of Kaldi's as OpenFst's documentation writes binary FSTs."""
    archive = b""
    for block in content.strip().split("\n\n"):
        name, *lines = block.splitlines()
        states: dict[int, tuple[bytes, list[bytes]]] = {}

        def weight(fields: list[str]) -> bytes:
            parts = (fields[0] if fields else "0,0,").split(",")
            transitions = [int(one) for one in parts[2].split("_") if one] if compact else []
            return struct.pack("<ff", *map(float, parts[:2])) + (struct.pack(
                f"<{1 + len(transitions)}i", len(transitions), *transitions) if compact else b"")

        for fields in map(str.split, lines):
            final, arcs = states.setdefault(int(fields[0]), (b"", []))
            if len(fields) <= 2:
                states[int(fields[0])] = (weight(fields[1:]), arcs)
            else:
                label = int(fields[2 if compact else 3])
                arcs.append(struct.pack("<ii", label if compact else int(fields[2]), label)
                            + weight(fields[3 if compact else 4:])
                            + struct.pack("<i", int(fields[1])))
                states.setdefault(int(fields[1]), (b"", []))
        no_end = struct.pack("<ff", math.inf, math.inf) + (b"\0" * 4 if compact else b"")
        kind = b"compactlattice44" if compact else b"lattice4"
        archive += name.encode() + b" " + struct.pack(
            f"<ii6si{len(kind)}siiQqqq", 2125659606, 6, b"vector", len(kind), kind, 2, 0, 3,
            int(lines[0].split()[0]), len(states), sum(len(arcs) for _, arcs in states.values()))
        for state in range(len(states)):
            final, arcs = states[state]
            archive += (final or no_end) + struct.pack("<q", len(arcs)) + b"".join(arcs)
    return archive


@pytest.mark.parametrize("name", ["lat.1", "lat.1.gz"])
@pytest.mark.parametrize("content", [COMPACT, LATTICE])
def test_binary_kaldi_archives(tmp_path: Path, content: str, name: str) -> None:
    archive = binary(content, content == COMPACT)
    path = tmp_path / name
    path.write_bytes(gzip.compress(archive) if name.endswith(".gz") else archive)
    words = written(tmp_path, SYMBOLS, "words.txt")
    first, second = read_all(path, symbols=words)
    assert (first.name, texts(first)) == ("u1", EXPECTED)
    assert (second.name, texts(second)) == ("u2", {"good": (-1.25, -0.25)})
    damaged = tmp_path / "damaged"
    for size in range(20, len(archive) - 1, 7):  # an error, or only the lattices before it
        damaged.write_bytes(archive[:size])
        try:
            assert len(list(read_all(damaged, symbols=words, format="kaldi"))) == 1
        except LatticeError as error:
            assert str(damaged) in str(error)
    for old, new, message in ((b"vector", b"vectoz", "kind 'vectoz'"),
                              (b"lattice4", b"lattice8", "lattice8"),
                              (b"u2 ", b"u2 x", "something else"), (b"\4\0\0\0", b"\5\0\0\0",
                                                                   "symbol table has no such")):
        damaged.write_bytes(archive.replace(old, new))
        with pytest.raises(LatticeError, match=message):
            list(read_all(damaged, symbols=words, format="kaldi"))


def test_a_binary_kaldi_lattice_that_kaldifst_wrote(tmp_path: Path) -> None:
    kaldifst = pytest.importorskip("kaldifst")
    lattice = kaldifst.Lattice()
    for _ in range(3):
        lattice.add_state()
    lattice.start = 0
    for start, label, graph, acoustic, end in ((0, 1, 1.0, 2.0, 1), (0, 2, 0.5, 4.0, 1),
                                               (1, 3, 0.25, 0.5, 2)):
        lattice.add_arc(start, kaldifst.LatticeArc(
            9, label, kaldifst.LatticeWeight(graph, acoustic), end))
    lattice.set_final(2, kaldifst.LatticeWeight(0.125, 0.0))
    path = tmp_path / "one.fst"
    assert lattice.write(str(path))
    found = read(path, symbols=written(tmp_path, SYMBOLS, "words.txt"))
    assert found.name == "one"
    assert texts(found) == {"its fine": (-2.5, -1.375), "it's fine": (-4.5, -0.875)}


def test_srilm_mesh(tmp_path: Path) -> None:
    path = written(tmp_path, """name u1
numaligns 3
posterior 1
align 0 <s> 1
align 1 it's 0.75 *DELETE* 0.25
reference 1 it's
hyps 1 it's 3 4
align 2 good 0.5 fine 0.5
info 2 good 0.3 0.2 -120 -3.2 g:uh:d 3:7:4
""")
    expected = {"it's good": 0.375, "it's fine": 0.375, "good": 0.125, "fine": 0.125}
    assert texts(read(path)) == {text: (math.log(p), 0.0) for text, p in expected.items()}
    slots = [{"it's": math.log(0.75), "": math.log(0.25)},
             {"good": math.log(0.5), "fine": math.log(0.5)}]
    assert texts(confusion_network(slots)) == {
        text: (math.log(p), 0.0) for text, p in expected.items()}


POCKETSPHINX = """# getcwd: /this/is/bogus
# -logbase 1.000100e+00
#
Frames 40
#
Nodes 6 (NODEID WORD STARTFRAME FIRST-ENDFRAME LAST-ENDFRAME)
0 </s> 30 39 39 ; 0
1 its 10 14 14 ; 0
2 it's(2) 10 14 14 ; 0
3 fine 15 29 29 ; 0
4 good 15 29 29 ; 0
5 <s> 0 9 9 ; 0
#
Initial 5
Final 0
#
BestSegAscr 0 (NODEID ENDFRAME ASCORE)
#
Edges (FROM-NODEID TO-NODEID ASCORE)
5 1 -5000
5 2 -10000
5 4 -40000
1 3 -15000
2 4 -15000
3 0 -1
4 0 -1
End
"""


def test_pocketsphinx_file(tmp_path: Path) -> None:
    lattice = read(written(tmp_path, POCKETSPHINX))
    unit = math.log(1.0001)
    assert texts(lattice) == {"its fine": (-20001 * unit, 0.0), "it's good": (-25001 * unit, 0.0),
                              "good": (-40001 * unit, 0.0)}
    assert {arc.times for arc in lattice.arcs if arc.label == "fine"} == {(0.15, 0.3)}


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_pocketsphinx_decoder(scorer: lmfusion.LMFusionScorer) -> None:
    from lmfusion.demo.recognition import clean_text, decode
    from lmfusion.demo.speech import speak
    from lmfusion.lattice import pocketsphinx
    decoder = decode(speak("the weather is nice"))
    lattice = with_ngram(pocketsphinx.lattice_of(decoder), pocketsphinx.ngram_of(decoder))
    found = scorer.best_path(lattice, weight=0.0, ngram_weight=9.5,  # bestpathlw
                             word_insertion_bonus=9.5 / 6.5 * math.log(0.65))  # lw, wip
    assert found.paths[0].text == clean_text(decoder.hyp().hypstr)
    assert 0 < found.paths[0].arcs[-2].times[1] <= 3.0


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "empty"),
    ("VERSION=1.0\nend=1\nN=2 L=1\nI=0\nI=1\nJ=0 S=0 E=2 a=-1\n", {}, "node 2 is not there"),
    ("VERSION=1.0\nN=2 L=1\nI=0\nI=1\nJ=0 S=0 E=1 a=x\n", {}, "link 0"),
    ("VERSION=1.0\nN=2 L=1\nI=0\nI=1\nJ=0 S=0 E=1 a=nan\n", {}, "is nan"),
    ("VERSION=1.0\nN=2 L=1\nI=0\nI=1\nJ=0 S=0\n", {}, "no end"),
    ("VERSION=1.0\nbase=0\nN=2 L=1\nI=0\nI=1\nJ=0 S=0 E=1\n", {}, "base=0"),
    ("VERSION=1.0\nend=7\nN=2 L=1\nI=0\nI=1\nJ=0 S=0 E=1\n", {}, "the end is node 7"),
    (FST, {}, "there is no symbol table"),
    (FST, {"symbols": {"its": 1}}, "line 2: the label 2 .* no such"),
    (FST, {"symbols": {"its": 1}, "acceptor": True, "format": "openfst"}, "fields"),
    ("0 1 a b x\n1\n", {}, "line 1: a text of 1 letters where"),
    ("0 1 a b nan\n1\n", {}, "is nan"),
    ("0 1 a b -Infinity\n1\n", {}, "is inf"),
    ("0 one a b 1\n1\n", {}, "number of a node"),
    ("0 1 a b 1\n1 0 a b\n1\n", {}, "cycle"),
    ("0 1 a b 1\n", {}, "no final node"),
    ("0 1 a b 1\n1\n", {"symbols": {"a": 1}}, "does not have the label"),
    (K2.rsplit("\n", 2)[0], {"symbols": {1: "a", 2: "b", 3: "c", 4: "d"}}, "no final node"),
    (K2 + "0 1 2 3 4\n", {"symbols": {1: "a", 2: "b", 3: "c", 4: "d"}}, "the line before"),
    (COMPACT.replace("2,0.5,3_4", "2,0.5"), {"symbols": {1: "a"}}, "2 parts between commas"),
    (COMPACT.replace("u1\n", "u1 x\n"), {"format": "kaldi"}, "id of an utterance"),
    ("name x\nnumaligns 2\nalign 0 a 1\n", {}, "1 slots"),
    ("name x\nnumaligns 1\nalign 0 a -1\n", {}, "probability"),
    ("name x\nnumaligns 1\nalign 0 a\n", {}, "expected"),
    (POCKETSPHINX.removesuffix("End\n"), {}, "cut off"),
    (POCKETSPHINX.replace("5 1 -5000", "5 9 -5000"), {}, "node 9"),
    (POCKETSPHINX.replace("5 1 -5000", "5 1"), {}, "line 20"),
    (POCKETSPHINX.replace("Final 0\n", ""), {}, "Final is missing"),
    (POCKETSPHINX.replace("3 fine", "8 fine"), {}, "line 10"),
]


@pytest.mark.parametrize(("content", "options", "message"), BAD)
def test_bad_files(tmp_path: Path, content: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LatticeError, match=message):
        list(read_all(written(tmp_path, content), **options))


def test_unknown_formats_and_options(tmp_path: Path) -> None:
    path = written(tmp_path, POCKETSPHINX)
    with pytest.raises(ValueError, match="one of 'slf'"):
        read(path, format="fsm")
    with pytest.raises(ValueError, match="no such option"):
        read(path, symbols={})
    with pytest.raises(LatticeError, match="line 1: the id"):
        read(written(tmp_path, "its 1\n", "words.txt"), format="kaldi")
    with pytest.raises(LatticeError, match="a symbol and its number"):
        read(written(tmp_path, FST), symbols=written(tmp_path, "its 1\nfine\n", "words.txt"))
