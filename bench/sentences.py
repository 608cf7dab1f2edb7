"""A few everyday sentences and the words a recogniser takes for each other in them."""

from __future__ import annotations

SENTENCES = (
    "i would like a cup of tea with a little milk please",
    "could you tell me where the nearest train station is",
    "we should meet again tomorrow morning before the shop opens",
    "my sister bought two new chairs for the kitchen",
    "it has been raining all day and the road is wet",
    "they said that the doctor would see her at four",
    "do you know whether the bus to the airport runs on sunday",
    "please write your name and address on this piece of paper",
    "the children were playing in the garden when it began to snow",
    "i cannot hear you very well because of the noise",
    "there is a letter for you on the table by the door",
    "he wanted to buy some bread but the bakery was closed",
    "we have been waiting here for almost an hour",
    "the weather will be fine for the rest of the week",
    "she told me a story about a horse that could count",
    "turn right at the corner and then go straight ahead",
    "i think the red coat would fit you better than the blue one",
    "our flight was late so we missed the last train home",
    "would you mind closing the window it is rather cold in here",
    "he broke the glass and did not want to pay for it",
    "the new teacher knows the name of every child in the school",
    "i need to be at work by eight so wake me at six",
    "they ate fish and rice and drank a whole bottle of wine",
    "can we look at the pictures you took by the sea",
    "it is too far to walk and we have too many bags",
    "the meeting was moved to monday because nobody had time",
    "my brother plays the piano and sings in a choir",
    "you ought to see the view from the top of that hill",
    "i read the book you gave me and liked the ending best",
    "where did you put the keys to the front door",
    "the old man sat by the river and watched the boats go by",
    "let me know when you are ready to leave the house",
)

# Words that sound alike, or nearly so.
_ALIKE = (
    "i eye aye", "would wood", "to two too", "for four fore", "see sea", "right write rite",
    "new knew gnu", "there their they're", "hear here", "be bee", "by buy bye", "know no",
    "one won", "our hour are", "weather whether wether", "red read", "road rode rowed",
    "piece peace", "week weak", "eight ate", "some sum", "horse hoarse", "told tolled",
    "not knot", "would wouldn't", "wait weight", "board bored", "blue blew", "fit feet",
    "brake break", "pay bay", "tea tee", "meet meat mete", "all awl", "said set", "been bin bean",
    "the a", "a uh", "is his", "it at", "in an", "and end", "on own", "we wee", "her were",
    "that hat", "he she", "time thyme", "name aim", "home comb", "rain reign rein", "main mane",
    "whole hole", "wine whine", "site sight cite", "ought aught", "view few", "best test",
    "keys quays", "door four", "man men", "boats goats", "leave leaf", "house how's",
    "chairs cheers", "kitchen chicken", "bread bred", "fish dish", "rice rise", "train drain",
    "late light", "cold called", "glass class", "school cool", "work walk", "wake wick",
)


def _alternatives() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for line in _ALIKE:
        words = line.split()
        for word in words:
            table.setdefault(word, []).extend(w for w in words
                                              if w != word and w not in table[word])
    return {word: tuple(others) for word, others in table.items()}


ALTERNATIVES = _alternatives()
VOCABULARY = tuple(sorted({word for line in (*SENTENCES, *_ALIKE) for word in line.split()}))
