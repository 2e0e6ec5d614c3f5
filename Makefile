# deltapath: plain GNU make. `make help` lists the targets; `make print-NAME` shows a variable.
.DEFAULT_GOAL := build
SHELL := /bin/bash

CC := mpicc
BUILD ?= release
N ?= 100
ARCH ?= native
PREFIX ?= /usr/local
OUT := build/$(BUILD)
Q := $(if $(V),,@) # V=1 shows the commands

# pkg-config runs when a recipe needs it, not when make starts: `make deps` works without it.
PACKAGES := hdf5-openmpi openblas libxxhash jansson libfyaml
PACKAGE_CFLAGS = $(shell pkg-config --cflags $(PACKAGES))
PACKAGE_LIBS = $(shell pkg-config --libs $(PACKAGES))

OPTIMISE_release := -O3 -g
OPTIMISE_debug := -O1 -g3
OPTIMISE_asan := -O1 -g3 -fno-omit-frame-pointer -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined

# libFuzzer is clang's; without -fopenmp, whose library for clang is another one.
OPTIMISE_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
    -fno-sanitize-recover=undefined

# With clang's OpenMP, of whose barriers the thread sanitizer knows; gcc's would be all races.
OPTIMISE_tsan := -O1 -g -fsanitize=thread
THREADS_tsan := -fopenmp -Wno-unused-parameter -Wno-unused-variable -Wno-pass-failed

# -ffp-contract=off: an elementwise edit gives the same bits whatever the compiler fuses.
THREADS_fuzz := -Wno-unknown-pragmas -Wno-unused-parameter -Wno-unused-variable -Wno-pass-failed -idirafter tools/lint/clang
CFLAGS := -std=c17 -Wall -Wextra -Werror -ffp-contract=off $(or $(THREADS_$(BUILD)),-fopenmp) \
    -march=$(ARCH) $(OPTIMISE_$(BUILD))
CPPFLAGS = -D_GNU_SOURCE -Iinclude $(PACKAGE_CFLAGS)
LDLIBS = -lscalapack-openmpi -llapacke $(PACKAGE_LIBS) -lm -lpthread

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

.PHONY: doc-tables build library tests benches deps demo check asan tsan fuzz fuzzers bench lint format format-check tidy \
    install doc info help clean paper chaos
build: | deps-build ## build the program at build/release/deltapath (BUILD=release, debug or asan)
	@$(MAKE) --no-print-directory $(PROGRAM)
library: $(LIBRARY)
program: $(PROGRAM)
tests: $(TESTS)
benches: $(BENCHES)

deps: ## install the Debian packages that are missing, or print the command that does
	tools/deps.sh all
deps-%:
	@tools/deps.sh $*

$(OUT)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(OUT)/obj/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP -c $< -o $@

$(LIBRARY): $(LIBRARY_OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^

# The sanitizer's settings are those of the tests.
PROGRAM_SUPPORT_asan := $(OUT)/obj/tests/support/sanitizer.o
$(PROGRAM): $(PROGRAM_OBJECTS) $(PROGRAM_SUPPORT_$(BUILD)) $(LIBRARY)
	@echo "  LINK  $@"
	$(Q)$(CC) $(CFLAGS) $(PROGRAM_OBJECTS) $(PROGRAM_SUPPORT_$(BUILD)) $(LIBRARY) $(LDLIBS) -o $@

$(OUT)/tests/%: tests/%.c $(SUPPORT_OBJECTS) $(LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP -MF $@.d $< $(SUPPORT_OBJECTS) $(LIBRARY) $(LDLIBS) \
	    -lcmocka -o $@

demo: | deps-demo ## run the main job on the shipped models and write its report
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	tools/demo.sh $(PROGRAM)

paper: | deps-paper ## the paper's figures and claims on the shipped models, out/paper/report.html
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	tools/paper.sh $(PROGRAM)

check: | deps-check ## build and run the whole test suite; search=NAME runs a part
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) tests
	tests/run -b $(OUT) $(search)

chaos: | deps-check ## kills, failing calls, full disks and changed inputs: N=100 of each (N=0: every call)
	@$(MAKE) --no-print-directory -j2 $(PROGRAM)
	tests/chaos/run $(OUT) $(N)

asan: | deps-check ## the suite under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory -j2 BUILD=asan build/asan/deltapath tests
	tests/run -b build/asan $(search)

TSAN_LAYERS := base tensor linalg nn edit model
TSAN_TESTS := $(filter $(TSAN_LAYERS:%=build/tsan/tests/%/%),$(TEST_SOURCES:tests/%.c=build/tsan/tests/%))
tsan: | deps-tsan ## threaded kernels under the thread sanitizer, two threads a rank; search=nn/ some
	@OMPI_CC="$(FUZZ_CC)" $(MAKE) --no-print-directory -j2 BUILD=tsan $(TSAN_TESTS)
	OMP_NUM_THREADS=2 TSAN_OPTIONS=ignore_noninstrumented_modules=1:allocator_may_return_null=1 \
	    tests/run -b build/tsan $(or $(search),test_mem test_signal nn/ edit_run model/)

SECONDS ?= 60
fuzz: | deps-fuzz ## libFuzzer targets of every parser, each for SECONDS=60 (search=NAME: some)
	@OMPI_CC="$(FUZZ_CC)" $(MAKE) --no-print-directory -j2 BUILD=fuzz fuzzers
	tests/fuzz/run build/fuzz $(SECONDS) $(search)

FUZZ_CC ?= clang
fuzzers: $(FUZZERS)
$(OUT)/%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.c tests/fuzz/fuzz.h $(LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer $< tests/fuzz/fuzz.c $(LIBRARY) $(LDLIBS) -lgomp -o $@

bench: | deps-check ## ratios against the limits of this machine, each measured in the same run
	@$(MAKE) --no-print-directory -j2 $(PROGRAM) benches
	tests/bench/run $(OUT)

lint: | deps-lint ## layers, house rules, documents, static analysis
	tools/lint/layers.sh
	tools/lint/rules.sh
	tools/lint/docs.sh
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
TIDY_FLAGS = -std=gnu17 $(CPPFLAGS) $(shell mpicc --showme:compile) -fopenmp -idirafter tools/lint/clang
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

info: ## compiler, flags and packages of this build
	@echo "compiler  $$($(CC) --version | head -n 1)"
	@echo "flags     $(CFLAGS)"
	@for p in $(PACKAGES); do echo "package   $$p $$(pkg-config --modversion $$p)"; done
	@echo "mpi       $$(mpirun --version | head -n 1)"

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|'
print-%:
	@echo '$* = $($*)'

clean: ## remove everything that was built
	rm -rf build

-include $(LIBRARY_OBJECTS:.o=.d) $(PROGRAM_OBJECTS:.o=.d) $(SUPPORT_OBJECTS:.o=.d) $(TESTS:=.d)
