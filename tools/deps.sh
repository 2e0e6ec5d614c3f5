#!/usr/bin/env bash
# Make sure that what one purpose needs is there: `tools/deps.sh build|demo|paper|check|fuzz|tsan`. Asks the compiler
# and the programs themselves first, however they came there; then Debian's packages: installs what is missing
# when run as root (or with sudo that asks nothing), otherwise prints the one command to run. The Makefile sets
# PROBE (the command that links tools/probe.c), MPI and PKG_CONFIG.
set -euo pipefail

mpi=${MPI:-openmpi}
build=(gcc libc6-dev make pkg-config "${mpi/openmpi/openmpi-bin}" "lib$mpi-dev" "libscalapack-$mpi-dev"
    "libhdf5-$mpi-dev" libopenblas-openmp-dev liblapacke-dev librandom123-dev libxxhash-dev
    libfyaml-dev libjansson-dev libdnnl-dev)
demo=(gnuplot-nox)
paper=(python3 python3-h5py python3-numpy python3-xxhash)
check=(libcmocka-dev hdf5-tools python3 python3-h5py python3-numpy python3-xxhash slurm-wlm munge)
lint=(clang-format cppcheck universal-ctags)
tidy=(clang-tidy)
fuzz=(clang libclang-rt-14-dev)
tsan=("${fuzz[@]}" libomp-14-dev)
coverage=(lcov)
blas=(libblis-openmp-dev libblas-dev liblapack-dev)
cross=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)

purpose=${1:-build}
case $purpose in
build) wanted=("${build[@]}") ;;
demo) wanted=("${build[@]}" "${demo[@]}") ;;
paper) wanted=("${build[@]}" "${demo[@]}" "${paper[@]}") ;;
check) wanted=("${build[@]}" "${demo[@]}" "${check[@]}") ;;
lint) wanted=("${lint[@]}") ;;
tidy) wanted=("${build[@]}" "${tidy[@]}") ;;
fuzz) wanted=("${build[@]}" "${fuzz[@]}") ;;
tsan) wanted=("${build[@]}" "${check[@]}" "${tsan[@]}") ;;
coverage) wanted=("${build[@]}" "${demo[@]}" "${check[@]}" "${coverage[@]}") ;;
blas) wanted=("${build[@]}" "${check[@]}" "${blas[@]}") ;;
cross) wanted=("${build[@]}" "${cross[@]}") ;;
all) wanted=("${build[@]}" "${demo[@]}" "${check[@]}" "${lint[@]}" "${tidy[@]}") ;;
*)
    echo "deps: unknown purpose '$purpose': build demo paper check lint tidy fuzz tsan coverage blas cross all" >&2
    exit 2
    ;;
esac

builds() { [[ -n ${PROBE:-} ]] && why=$(eval "$PROBE" 2>&1); }

on_path() { PATH=$PATH:/usr/sbin:/usr/bin command -v "$@" >/dev/null; }

there() { # there PACKAGE: what it gives is there, from wherever
    case $1 in
    gnuplot-nox) on_path gnuplot ;;
    libcmocka-dev) "${PKG_CONFIG:-pkg-config}" --exists cmocka ;;
    hdf5-tools) on_path h5dump ;;
    python3) on_path python3 ;;
    python3-*) /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('${1#*-}') is None)" ;;
    slurm-wlm) on_path slurmctld slurmd sbatch ;;
    munge) on_path munged ;;
    clang-format | cppcheck | clang-tidy | clang | lcov) on_path "$1" ;;
    universal-ctags) on_path ctags ;;
    gcc-aarch64-linux-gnu) on_path aarch64-linux-gnu-gcc ;;
    *) return 1 ;;
    esac
} 2>/dev/null

installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == "install ok installed" ]]; }

why=
missing=()
links=no
builds && links=yes
for package in "${wanted[@]}"; do
    [[ $links == yes && " ${build[*]} " == *" $package "* ]] && continue
    there "$package" || installed "$package" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 && -n $why ]]; then
    echo "deps: the packages are there, but tools/probe.c does not build; doc/building.md says how to name" >&2
    echo "deps: libraries (make BLAS=... HDF5=...). The compiler says:" >&2
    head -n 8 <<<"$why" >&2
    exit 1
fi
[[ ${#missing[@]} -eq 0 ]] && exit 0
if ! command -v apt-get >/dev/null; then
    if [[ -n $why ]]; then
        echo "deps: tools/probe.c does not build here; doc/building.md lists what it needs. The compiler says:" >&2
        head -n 8 <<<"$why" >&2
    fi
    for package in "${missing[@]}"; do
        [[ " ${build[*]} " == *" $package "* ]] || echo "deps: not found: what Debian calls $package" >&2
    done
    exit 1
fi

if [[ $(id -u) -eq 0 ]]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo)
else
    echo "deps: packages are missing; run this once:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "deps: installing ${missing[*]}"
log=$(mktemp)
if ! {
    "${as_root[@]}" apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q \
            --no-install-recommends "${missing[@]}"
} >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "deps: apt-get failed; its whole output is in $log" >&2
    exit 1
fi
rm -f "$log"
