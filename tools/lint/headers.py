#!/usr/bin/python3
"""What include/ shows is used: fail on a function that no other source calls, on a header that no other layer
includes, and on files that include each other in a circle."""

import glob
import os
import re
import sys

os.chdir(os.path.join(os.path.dirname(__file__), "../.."))
FILES = [
    file
    for folder in ("include", "src")
    for file in sorted(glob.glob(f"{folder}/**/*.[ch]", recursive=True))
]
# Functions that only tests call.
FOR_TESTS = {
    "dpt_guard_clear",  # a test process replaces what it has read, as several runs would
    "dpt_mem_in_use",  # whether memory balances
    "dpt_agree_same",  # whether ranks have the same bits
    "dpt_same_on_all",  # the answer of a check that would end all ranks
    # Parts with a specification of their own, which is tested case by case.
    "dpt_nearest_distance",
    "dpt_riemann_slope_weights",
    "dpt_tokenizer_hash",
    "dpt_tokenizer_rules",
}
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def included(file, text):
    """Files of this project that a file includes."""
    for name in re.findall(r'^#include "([^"]+)"', text, re.MULTILINE):
        sibling = os.path.normpath(os.path.join(os.path.dirname(file), name))
        yield sibling if os.path.exists(sibling) else "include/" + name


def layer(file):
    """The layer of a file: the folder in include/deltapath/ or src/."""
    return re.match(r"(?:include/deltapath|src)/([^/]+)", file).group(1)


def circles(includes):
    """Every circle of includes, once."""
    state = {}

    def visit(file, path):
        state[file] = "open"
        for other in includes.get(file, ()):
            if state.get(other) == "open":
                yield path[path.index(other) :] + [other]
            elif other not in state:
                yield from visit(other, path + [other])
        state[file] = "done"

    for file in includes:
        if file not in state:
            yield from visit(file, [file])


def private_headers(includes):
    """Public headers that no other layer includes, neither itself nor through a public header."""
    public = {
        other
        for file, others in includes.items()
        for other in others
        if other.startswith("include/") and layer(file) != layer(other)
    }
    waiting = list(public)
    while waiting:
        for other in includes[waiting.pop()]:
            if other not in public:
                public.add(other)
                waiting.append(other)
    return [file for file in FILES if file.startswith("include/") and file not in public]


def uncalled(code):
    """Functions that include/ declares and no source calls but the one that has them."""
    sources = {file: text for file, text in code.items() if file.startswith("src/")}
    names = {file: set(re.findall(r"\bdpt_\w+", text)) for file, text in sources.items()}
    macros = {
        name
        for header, text in code.items()
        if header.startswith("include/")
        for macro in re.findall(r"^#define (?:.*\\\n)*.*", text, re.MULTILINE)
        for name in re.findall(r"\bdpt_\w+", macro)
    }
    for header, text in code.items():
        if not header.startswith("include/"):
            continue
        for name in re.findall(r"^[a-z][^;{}()#]*?\b(dpt_\w+)\([^;{}]*\)[^;{}]*;", text, re.MULTILINE):
            homes = [
                file
                for file in sources
                if name in names[file] and re.search(rf"^\w[^;={{}}()]*\b{name}\(", sources[file], re.MULTILINE)
            ]
            if name not in FOR_TESTS | macros and not any(name in names[file] for file in sources if file not in homes):
                yield header, name


def main():
    texts = {file: open(file, encoding="utf-8").read() for file in FILES}
    includes = {file: list(included(file, text)) for file, text in texts.items()}
    code = {file: COMMENT.sub("", text) for file, text in texts.items()}
    found = [f"{' -> '.join(circle)}: files include each other" for circle in circles(includes)]
    found += [
        f"{file}: no other layer includes it: it belongs to src/{layer(file)}/"
        for file in private_headers(includes)
    ]
    found += [
        f"{file}: {name} has no caller outside its own file: make it static or remove it"
        for file, name in uncalled(code)
    ]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
