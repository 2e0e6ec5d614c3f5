#!/usr/bin/env bash
# seconds: 120
# Where OpenBLAS takes slow kernels for a processor the program starts again with faster ones, once, and not where the user
# chose some. A library that is loaded first says that the kernels are old ones, and writes down each start.
. "$(dirname "$0")/../support/tap.sh"

if nm -D "$program" | grep -q __asan_init; then # has to be loaded before all others
    skip "faster kernels" "AddressSanitizer"
    done_testing
    exit
fi
cat >"$tap_root/old.c" <<'END'
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
char *openblas_get_corename(void) { return "Prescott"; }
__attribute__((constructor)) static void start(void) {
    if (strcmp(program_invocation_short_name, "deltapath") != 0)
        return; /* a daemon of MPI */
    FILE *file = fopen(getenv("STARTS"), "a");
    const char *kernels = getenv("OPENBLAS_CORETYPE");
    fprintf(file, "%s\n", kernels != NULL ? kernels : "none");
    fclose(file);
}
END
gcc -shared -fPIC -o "$tap_root/old.so" "$tap_root/old.c"

starts() { # starts [VARIABLE=VALUE]: what the program found in the environment each time, on one line
    rm -f "$tap_root/starts"
    env -u OPENBLAS_CORETYPE STARTS="$tap_root/starts" LD_PRELOAD="$tap_root/old.so" "$@" "$program" --version >/dev/null
    tr '\n' ' ' <"$tap_root/starts"
}
faster=
grep -qw avx2 /proc/cpuinfo && faster="Haswell "
grep -qw avx512vl /proc/cpuinfo && faster="SkylakeX "
[[ $(starts) == "none $faster" ]]
ok "kernels that the processor has" $? "$(starts)"
[[ $(starts OPENBLAS_CORETYPE=Nehalem) == "Nehalem " ]]
ok "kernels that the user chose stay" $? "$(starts OPENBLAS_CORETYPE=Nehalem)"
done_testing
