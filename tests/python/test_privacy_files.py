"""No text of a file of hypotheses or of a lattice is in the errors about it, however it is damaged:
such errors end up in the logs of a rescoring job. Names of files and utterances may be said."""

from __future__ import annotations

import json
import random
import re
import warnings
from pathlib import Path
from typing import Any

import lmfusion
import pytest
from lmfusion import nbest
from lmfusion.lattice import read_all

SECRET = "abracadabra"
DAMAGES = 150
LISTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nemo tsv": ("b.tsv", f"{SECRET}\t-1.0\n{SECRET} b\t-1.5\n", {"beam_size": 2}),
    "csv": ("b.csv", f"utterance,text,score\nu-1,{SECRET},-1\nu-1,{SECRET} b,-2\n", {}),
    "nemo": ("b.json", json.dumps({"audio_filepath": "u-1", "duration": 1.0, "pred_text": SECRET,
                                   "beams": [[SECRET, -1.0], [f"{SECRET} b", -2.0]]}) + "\n", {}),
    "espnet": ("result.json", json.dumps({"utts": {"u-1": {"output": [
        {"rec_text": SECRET, "score": -1.0}, {"rec_text": f"{SECRET} b", "score": -2.0}]}}}), {}),
    "htk": ("b.mlf", f'#!MLF!#\n"*/u-1.rec"\n0 100 {SECRET} -0.5\n///\n0 100 {SECRET} -1.5\n.\n',
            {}),
    "srilm 1": ("u-1.nbest", f"NBestList1.0\n(-9000) {SECRET}\n(-9100) b {SECRET}\n", {}),
    "srilm 2": ("u-1.nbest", "NBestList2.0\n"
                f"(-9000) {SECRET} st: 0.00 et: 0.50 g: 0 a: -1 p: 0\n", {}),
    "srilm 3": ("u-1.score", f"-1 -3 1 {SECRET}\n-1.1 -2 2 {SECRET} b\n", {}),
    "hypr": ("dev.jsonl", json.dumps({"utt_id": "u-1", "hyps": [SECRET, f"{SECRET} b"],
                                      "score": [-1.0, -2.0]}) + "\n", {}),
    "rows": ("rows.jsonl", json.dumps({"utterance": "u-1", "text": SECRET, "score": -1.0}) + "\n",
             {}),
    "brain-to-text": ("b.txt", f"{SECRET};-1.0;-7.5\n{SECRET} b;-1.5;-8\n", {}),
    "trn": ("b.trn", f"{SECRET} (u_1)\nb {SECRET} (u_1)\n", {})}
SLF = (f"VERSION=1.0\nUTTERANCE=u1\nN=3 L=2\nI=0 t=0 W=!NULL\nI=1 t=1 W={SECRET}\n"
       f"I=2 t=2 W={SECRET}\nJ=0 S=0 E=1 a=-1 l=-2\nJ=1 S=1 E=2 a=-1 l=-2\n")
LATTICES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "slf": ("u1.slf", SLF, {}),
    "mesh": ("u1.mesh", f"name u1\nnumaligns 2\nposterior 1\nalign 0 {SECRET} 0.75 *DELETE* 0.25\n"
             f"align 1 {SECRET} 1\ninfo 1 {SECRET} 0.3 0.2 -120 -3.2\n", {}),
    "openfst": ("u1.txt", f"0 1 {SECRET} {SECRET} 0.5\n1 2 {SECRET} {SECRET} 1\n2 0\n",
                {"format": "openfst"}),
    "kaldi": ("lat.txt", f"u1\n0 1 {SECRET} 2,0.5,3_4\n1 2 {SECRET} 1,1,3_5\n2 0,0,\n\n", {}),
    "pocketsphinx": ("u1.lat", "# getcwd: /this\n# -logbase 1.0001\n#\nFrames 40\n#\n"
                     "Nodes 3 (NODEID WORD STARTFRAME FIRST-ENDFRAME LAST-ENDFRAME)\n"
                     f"0 </s> 30 39 39 ; 0\n1 {SECRET} 1 9 9 ; 0\n"
                     "2 <s> 0 9 9 ; 0\n#\nInitial 2\nFinal 0\n#\nBestSegAscr 0 (NODEID ENDFRAME "
                     "ASCORE)\n#\nEdges (FROM-NODEID TO-NODEID ASCORE)\n2 1 -5\n1 0 -9\nEnd\n", {})}


def damaged(content: str, draw: random.Random) -> str:
    """A number that is the secret, a mark that is missing, doubled or another, or an early end; the
    beginning of no line, where many formats have names."""
    kind = draw.randrange(4)
    places = [*re.finditer(r"(?<=[\s,;:\[(=])-?\d+(\.\d+)?", content)]
    if kind == 0 and places:
        place = draw.choice(places)
        return content[:place.start()] + SECRET + content[place.end():]
    if kind == 3:
        return content[:draw.randrange(len(content))]
    at = draw.choice([i for i, letter in enumerate(content) if not letter.isalnum()])
    other = draw.choice(["", content[at] * 2, *" \t,;\"[]{}()=\\\x00\xff"])
    return content[:at] + other + content[at + 1:]


def said(error: BaseException | None) -> str:
    """All that a log may show of an error and of those that led to it."""
    found = ""
    while error is not None:
        found += f"{error} {error!r} "
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


@pytest.mark.parametrize("kind", [*LISTS, *LATTICES])
def test_damaged_files(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, content, options = (LISTS | LATTICES)[kind]
    path = tmp_path / name
    errors = 0
    for seed in range(DAMAGES):
        path.write_text(damaged(content, random.Random(seed)) if seed else content)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                if kind in LISTS:
                    assert SECRET not in repr(list(nbest.read(path, **options)))
                else:
                    assert SECRET not in repr(list(read_all(path, **options)))
            except (ValueError, lmfusion.Error) as error:
                assert seed, "the whole file is read"
                errors += 1
                assert SECRET not in said(error), (seed, said(error))
        assert not any(SECRET in str(each.message) for each in warned)
    assert errors > 0
    assert SECRET not in "".join(capfd.readouterr())
