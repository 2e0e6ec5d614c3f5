# deltapath: build with GNU make. `make help` lists the targets.
CC := mpicc
BUILD ?= release
OUT := build/$(BUILD)
ARCH ?= native

PKGS := openblas libxxhash jansson libfyaml
HDF5_CFLAGS := $(shell pkg-config --cflags hdf5-openmpi 2>/dev/null)
HDF5_LIBS := $(shell pkg-config --libs hdf5-openmpi 2>/dev/null)

FLAGS_release := -O3 -march=$(ARCH)
FLAGS_debug := -O1 -g3 -march=$(ARCH)
FLAGS_asan := -O1 -g3 -march=$(ARCH) -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

CFLAGS := -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -ffp-contract=off -fopenmp $(FLAGS_$(BUILD))
CPPFLAGS := -Iinclude $(HDF5_CFLAGS) $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS := $(HDF5_LIBS) -lscalapack-openmpi -llapacke $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -lpthread

SOURCES := $(filter-out src/cli/%,$(sort $(wildcard src/*/*.c)))
CLI_SOURCES := $(sort $(wildcard src/cli/*.c))
OBJECTS := $(SOURCES:src/%.c=$(OUT)/obj/%.o)
CLI_OBJECTS := $(CLI_SOURCES:src/%.c=$(OUT)/obj/%.o)
LIBRARY := $(OUT)/libdeltapath.a
PROGRAM := $(OUT)/deltapath
TEST_SOURCES := $(sort $(wildcard tests/*/test_*.c))
TESTS := $(TEST_SOURCES:tests/%.c=$(OUT)/tests/%)
BENCH_SOURCES := $(sort $(wildcard tests/bench/bench_*.c))
BENCHES := $(BENCH_SOURCES:tests/%.c=$(OUT)/tests/%)

.PHONY: build tests library clean
build: $(if $(CLI_SOURCES),$(PROGRAM),$(LIBRARY))
library: $(LIBRARY)
tests: $(TESTS)

$(OUT)/obj/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	ar rcs $@ $^

$(PROGRAM): $(CLI_OBJECTS) $(LIBRARY)
	$(CC) $(CFLAGS) $(CLI_OBJECTS) $(LIBRARY) $(LDLIBS) -o $@

$(OUT)/tests/%: tests/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP -MF $@.d $< $(LIBRARY) $(LDLIBS) -lcmocka -o $@

clean:
	rm -rf build

-include $(OBJECTS:.o=.d) $(CLI_OBJECTS:.o=.d) $(TESTS:=.d)
