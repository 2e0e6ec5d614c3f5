"""The demo tasks: sort, or reverse, five different letters.  Answers are exact.

A letter set is either a training set or a held-out set, by a hash of its sorted letters, so no
held-out prompt is a reordering of a training prompt.
"""
import math
import random
import string
import zlib

LETTERS = 5
HELD_SHARE = 16  # one set in 16 is held out
ENDS = {"": 0.0, "!": 1.0, ".": 2.0}  # how an answer may end, and its worth to the annotator


def is_held(letters) -> bool:
    return zlib.crc32("".join(sorted(letters)).encode()) % HELD_SHARE == 0


def draw(rng: random.Random, held: bool) -> list[str]:
    """Five different letters of the asked half."""
    while True:
        letters = rng.sample(string.ascii_lowercase, LETTERS)
        if is_held(letters) == held:
            return letters


def sample(rng: random.Random, held: bool) -> dict:
    """One {"prompt", "response"} pair of sorting."""
    letters = draw(rng, held)
    return {"prompt": "Sort: " + " ".join(letters) + "\nAnswer:",
            "response": "".join(" " + c for c in sorted(letters))}


def sample_reverse(rng: random.Random, held: bool) -> dict:
    """One {"prompt", "response"} pair of reversing."""
    letters = draw(rng, held)
    return {"prompt": "Reverse: " + " ".join(letters) + "\nAnswer:",
            "response": "".join(" " + c for c in reversed(letters))}


def sample_preference(rng: random.Random, held: bool) -> dict:
    """{"prompt", "chosen", "rejected"}: two forms of the right answer to a sorting prompt.

    Which one is chosen is drawn by the Bradley-Terry law that DPO assumes: with probability
    sigmoid(difference of worth).  So not every pair goes to the form of greater worth.
    """
    letters = draw(rng, held)
    pair = rng.sample(list(ENDS), 2)
    first = rng.random() < 1 / (1 + math.exp(ENDS[pair[1]] - ENDS[pair[0]]))
    chosen, rejected = pair if first else pair[::-1]
    answer = "".join(" " + c for c in sorted(letters))
    return {"prompt": "Sort: " + " ".join(letters) + "\nAnswer:",
            "chosen": answer + chosen, "rejected": answer + rejected}
