#!/usr/bin/env bash
# seconds: 300
# The Makefile: each combination of settings has a folder of its own, given flags reach the compiler, libraries
# that are there need no package manager, and what is missing is named.
. "$(dirname "$0")/../support/tap.sh"
for name in MAKEFLAGS MAKELEVEL MFLAGS BUILD ARCH MPI CC MPICC CPPFLAGS CFLAGS LDFLAGS LDLIBS BLAS LAPACKE SCALAPACK \
    HDF5 LIBRARIES WERROR DPT_MPI OMPI_CC MPICH_CC; do
    unset "$name"
done
export CONFIG=$tmp/config.mk
other=x86-64-v2
[[ $(uname -m) == x86_64 ]] || other=armv8-a
value() { make -s "print-$1" "${@:2}" | sed 's/^[^=]* = //'; }
is() { # is NAME HAVE WANT
    [[ $2 == "$3" ]]
    ok "$1" $? "'$2', not '$3'"
}
matches() { # matches NAME TEXT REGEX
    grep -qE -- "$3" <<<"$2"
    ok "$1" $? "no '$3' in: $2"
}

is "the default folder" "$(value OUT)" build/release
is "another processor" "$(value OUT ARCH=$other)" build/release-$other
is "any processor" "$(value OUT ARCH=)" build/release-generic
is "another MPI" "$(value OUT MPI=mpich)" build/release-mpich
is "both, another build" "$(value OUT BUILD=debug MPI=mpich ARCH=$other)" build/debug-mpich-$other
flags=$(value OUT CFLAGS=-DA) environment=$(CFLAGS=-DA value OUT) libraries=$(value OUT BLAS="-lblis -llapack")
matches "given flags" "$flags" '^build/release-[0-9]+$'
is "the same from the environment" "$environment" "$flags"
holds "other flags, another folder" test "$(value OUT CFLAGS=-DB)" != "$flags"
holds "other libraries, another folder" test "$libraries" != build/release
echo "ARCH = $other" >"$CONFIG"
is "config.mk" "$(value OUT)" build/release-$other
is "the command line over config.mk" "$(value OUT ARCH=native)" build/release
rm "$CONFIG"

all=$(value ALL_CFLAGS CFLAGS=-Ofast ARCH=$other)
matches "given flags reach the compiler, fast mathematics does not" "$all" "-march=$other .*-Ofast -fno-fast-math -ffp-contract=off"
matches "a plain compiler is called by mpicc" "$(value COMPILER CC=gcc)" "OMPI_CC='?gcc'? .*mpicc"
matches "flags of a library" "$(value ALL_LDLIBS BLAS="-L/opt/blis -lblis")" '-L/opt/blis -lblis'
matches "a library by name" "$(value ALL_LDLIBS BLAS=jansson)" '-ljansson.*-lxxhash'
matches "given libraries' headers" "$(value ALL_CPPFLAGS HDF5="-I/opt/h5 -lhdf5")" '-I/opt/h5'

# An object of another folder is made there, with its flags, and the default's stays as it is.
object=obj/base/nearest.o folder=$(value OUT ARCH=$other CPPFLAGS=-DIN_TEST)
before=$(stat -c %Y "build/release/$object" 2>/dev/null)
rm -rf "$folder"
command=$(make V=1 ARCH=$other CPPFLAGS=-DIN_TEST "$folder/$object" 2>&1)
matches "an object of another folder" "$command" "-DIN_TEST.*-march=$other.*$folder/$object"
is "the default's object stays" "$(stat -c %Y "build/release/$object" 2>/dev/null)" "$before"

[[ $(nm -D "$program" | grep -c ' w openblas_get_corename') == 1 && -z $(nm -D "$program" | grep ' U openblas_') ]]
ok "another BLAS links: the calls that OpenBLAS alone has are weak" $?

# Package managers that only say that they were asked.
mkdir "$tmp/bin"
printf '#!/bin/sh\necho asked >>%s/asked\nexit 1\n' "$tmp" >"$tmp/bin/dpkg-query"
chmod +x "$tmp/bin/dpkg-query"
cp "$tmp/bin/dpkg-query" "$tmp/bin/apt-get"
PATH=$tmp/bin:$PATH make deps-build ARCH=$other CPPFLAGS=-DIN_TEST >"$tmp/out" 2>"$tmp/err"
ok "what is there needs no package manager" $?
holds "none was asked" test ! -e "$tmp/asked"
holds "the probe was linked" test -x "$folder/obj/probe"
rm -rf "$folder"

mkdir "$tmp/few" # no apt-get on this PATH
for tool in bash sh mkdir cat head cut cksum printf pkg-config make test env sed gcc as ld mpicc mpicc.openmpi grep; do
    at=$(command -v $tool) && [[ $at == /* ]] && ln -s "$at" "$tmp/few/$tool"
done
folder=$(value OUT BLAS=-lnothere)
PATH=$tmp/few make deps-build BLAS=-lnothere >"$tmp/out" 2>"$tmp/err"
ok "a missing library ends the build" $(($? == 0))
matches "it is named" "$(cat "$tmp/err")" 'cannot find -lnothere'
matches "and how to name another" "$(cat "$tmp/err")" 'doc/building.md'
rm -rf "$folder"

make -s commands COMMANDS="$tmp/commands.json" >"$tmp/out" 2>"$tmp/err"
ok "compile_commands.json" $?
/usr/bin/python3 - "$tmp/commands.json" >"$tmp/held" 2>&1 <<'P'
import glob, json, subprocess, sys
commands = {entry["file"]: entry for entry in json.load(open(sys.argv[1]))}
missing = set(glob.glob("src/*/*.c") + glob.glob("src/*/*/*.c") + glob.glob("tests/*/test_*.c")) - set(commands)
assert not missing, missing
entry = commands["src/base/nearest.c"]
subprocess.run(["bash", "-c", entry["command"] + " -fsyntax-only"], cwd=entry["directory"], check=True)
P
ok "every source is in it, and its commands run" $? "$(tail -n 1 "$tmp/held")"
done_testing
