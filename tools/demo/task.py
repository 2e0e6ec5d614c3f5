"""The demo task: sort five different letters.  Answers are exact, five tokens and an end mark.

A letter set is either a training set or a held-out set, by a hash of its sorted letters, so no
held-out prompt is a reordering of a training prompt.
"""
import random
import string
import zlib

LETTERS = 5
HELD_SHARE = 16  # one set in 16 is held out


def is_held(letters) -> bool:
    return zlib.crc32("".join(sorted(letters)).encode()) % HELD_SHARE == 0


def sample(rng: random.Random, held: bool) -> dict:
    """One {"prompt", "response"} pair of the asked half."""
    while True:
        letters = rng.sample(string.ascii_lowercase, LETTERS)
        if is_held(letters) == held:
            return {"prompt": "Sort: " + " ".join(letters) + "\nAnswer:",
                    "response": "".join(" " + c for c in sorted(letters))}
