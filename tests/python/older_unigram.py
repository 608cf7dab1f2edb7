"""How releases of SentencePiece before 0.2.2 segment a text by a unigram model, told again from
what they say they do. Since 0.2.2 a user-defined symbol of n bytes is worth 0.1 (n - 1) nats and no
longer n times the best score of a piece, less 0.1; and sums are rounded otherwise, which decides
between segmentations that are equally good."""

from __future__ import annotations

from typing import Any

import numpy as np

UNKNOWN_PENALTY = 10.0


class OlderUnigram:
    """Of a `sentencepiece.SentencePieceProcessor` of any release."""

    def __init__(self, processor: Any, user_defined: list[str]) -> None:
        self.processor = processor
        ids = [i for i in range(processor.get_piece_size())
               if not (processor.IsControl(i) or processor.IsUnknown(i) or processor.IsByte(i))]
        self.pieces = {processor.id_to_piece(i).encode(): i for i in ids
                       if not processor.IsUnused(i)}
        self.user = {processor.piece_to_id(symbol) for symbol in user_defined}
        scores = {i: np.float32(processor.get_score(i)) for i in ids if i not in self.user}
        most = max(np.finfo(np.float32).tiny, *scores.values())
        self.unknown = np.float32(min(scores.values())) - np.float32(UNKNOWN_PENALTY)
        self.score = {i: float(score) for i, score in scores.items()} | {
            i: float(np.float32(len(piece)) * most) - 0.1
            for piece, i in self.pieces.items() if i in self.user}
        self.longest = max(map(len, self.pieces))

    def encode(self, text: str) -> list[int]:
        """Each sum is of float64 for a piece, of float32 for an unknown character, and kept as
        float32; of sums that are equal the one that begins first stays."""
        line = self.processor.normalize(text).encode()
        best: list[tuple[np.float32, int, int] | None] = [None] * (len(line) + 1)
        best[0] = (np.float32(0), -1, -1)
        begin = 0
        while begin < len(line):
            size = len(line[begin:begin + 4].decode(errors="ignore")[0].encode())
            here = best[begin]
            assert here is not None
            ends = [(end, self.pieces.get(line[begin:end]))
                    for end in range(begin + 1, min(begin + self.longest, len(line)) + 1)]
            found = [(end, piece, float(here[0]) + self.score[piece])
                     for end, piece in ends if piece is not None]
            if all(end != begin + size for end, _, _ in found):
                found.append((begin + size, -1, float(here[0] + self.unknown)))
            for end, piece, total in found:
                before = best[end]
                if before is None or total > float(before[0]):
                    best[end] = (np.float32(total), begin, piece)
            begin += size
        return self.ids(line, best)

    def ids(self, line: bytes, best: list[tuple[np.float32, int, int] | None]) -> list[int]:
        """Unknown characters as their bytes, or many as one token."""
        parts, end = [], len(line)
        while end > 0:
            kept = best[end]
            assert kept is not None
            parts.append((kept[2], line[kept[1]:end]))
            end = kept[1]
        has_bytes = any(map(self.processor.IsByte, range(self.processor.get_piece_size())))
        ids: list[int] = []
        was_unknown = False
        for piece, part in reversed(parts):
            if piece >= 0:
                ids.append(piece)
            elif has_bytes:
                ids += [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in part]
            elif not was_unknown:
                ids.append(self.processor.unk_id())
            was_unknown = piece < 0
        return ids
