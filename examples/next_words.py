"""How likely are some words after what was heard so far? `python examples/next_words.py`"""

import lmfusion

scorer = lmfusion.LMFusionScorer(lmfusion.default_model(), weight=1.0, casing="sentence")
contexts = ["i would like a cup of", "she parked the"]
words = [["coffee", "tea", "key"], ["car", "cart"]]
for context, row, scores in zip(contexts, words, scorer.score_continuations(contexts, words)):
    for word, score in zip(row, scores):
        print(f"{score:8.3f}  {context} {word}")
print(f"{scorer.stats().tokens_computed} tokens computed")
