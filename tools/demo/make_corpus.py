#!/usr/bin/env python3
"""Build the English corpus of the demo models from public-domain Debian packages.

Downloads the packages with `apt-get download`, unpacks them in a scratch folder (nothing is
installed), strips indices and headers, and writes

    OUT/train.txt   paragraphs to train on
    OUT/held.txt    paragraphs never trained on (every 40th)

one paragraph a line.  Texts: King James Bible (1611), The Jargon File 4.4.7, and
The Devil's Dictionary (1911): all in the public domain by the packages' copyright files.
"""
import argparse
import gzip
import pathlib
import re
import subprocess
import sys

sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1]))
import outputs  # noqa: E402

PACKAGES = ("bible-kjv-text", "bible-kjv", "dict-jargon", "dict-devil")
HELD_EVERY = 40


def unpack(work: pathlib.Path) -> pathlib.Path:
    """Fetch the packages with apt and unpack them side by side; returns the root."""
    root = work / "root"
    root.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        if not list(work.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=work, check=True)
        deb = next(iter(work.glob(f"{name}_*.deb")))
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    return root


def bible(root: pathlib.Path) -> list[str]:
    """The whole Bible, three verses a paragraph, without chapter and verse numbers."""
    answer = subprocess.run(
        [root / "usr/bin/bible", "-f", "-p", root / "usr/lib", "-d", "bible.data"],
        input="gen1:1-rev22:21\n", capture_output=True, text=True, errors="replace", check=True)
    verses = re.findall(r"^(?:bible\S* \[.*?\]> )?\S*?\d+:\d+ (.*)$", answer.stdout, re.M)
    if len(verses) < 31000:
        raise SystemExit(f"make_corpus.py: bible: only {len(verses)} verses: is the package whole?")
    verses = verses[1:]  # the program greets with the first verse
    return [" ".join(verses[i:i + 3]) for i in range(0, len(verses), 3)]


def dictionary(path: pathlib.Path, first: str) -> list[str]:
    """Paragraphs of a dictd text from the line `first` on (before it stands the notice)."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    text = text[text.index(first):]
    for fancy, plain in (("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"), ("—", "--"), ("–", "-")):
        text = text.replace(fancy, plain)
    text = re.sub(r"[^\x20-\x7e\n]", "", text)
    paragraphs = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return [p for p in paragraphs if len(p) >= 60]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT_DIRECTORY")
    out = parser.parse_args().out.absolute()
    files = [out / "train.txt", out / "held.txt"]
    outputs.check_new(files)
    root = unpack(out / "packages")
    parts = {
        "bible-kjv-text": bible(root),
        "dict-jargon": dictionary(root / "usr/share/dictd/jargon.dict.dz", "/dev/null\n"),
        "dict-devil": dictionary(root / "usr/share/dictd/devil.dict.dz", "ABASEMENT, n."),
    }
    held, train = [], []
    for name, paragraphs in parts.items():
        print(f"{name}: {len(paragraphs)} paragraphs, {sum(map(len, paragraphs))} characters")
        for i, p in enumerate(paragraphs):
            (held if i % HELD_EVERY == HELD_EVERY - 1 else train).append(p)
    for path, paragraphs in zip(files, (train, held)):
        outputs.put(path, ("\n".join(paragraphs) + "\n").encode())


main()
