# `make demo` shows lonc at work, `make test` runs its tests, `make help` names the rest.
#
# Everything is built into $(VENV), a virtual environment of its own. A C compiler is used if there is one;
# LONC_BUILD_EXT=require insists on it (see setup.py). PIP_... variables reach pip.

PYTHON ?= python3
VENV   ?= .venv
PREFIX ?= /usr/local
ARGS   ?=

BIN := $(abspath $(VENV))/bin

.PHONY: help demo test test-all lint prove bench bench-quick coverage dist install clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/built  ## start a peer, a broker and clients, and show what they do
	@$(BIN)/lonc --version
	@$(BIN)/lonc demo $(ARGS)

test: $(VENV)/built $(VENV)/test-tools  ## all tests, over the compiled and the pure part (ARGS=... goes to pytest)
	@echo "Testing both parts on $$($(BIN)/python -VV | head -n 1). By default this build runs:"
	@$(BIN)/lonc --version
	@$(BIN)/python -m pytest $(ARGS)

test-all: test  ## the same on every newer Python of this machine
	@for minor in 12 13 14 15; do \
	    for python in python3.$$minor "$$HOME"/.pyenv/versions/3.$$minor.*/bin/python3.$$minor; do \
	        $$python -c '' 2>/dev/null || continue; \
	        $(MAKE) --no-print-directory test PYTHON="$$python" VENV=.venv-3.$$minor || exit 1; \
	        continue 2; \
	    done; \
	    echo "No Python 3.$$minor on this machine."; \
	done

lint: $(VENV)/lint-tools  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

prove: $(VENV)/built $(VENV)/test-tools  ## show that the tests notice each planted bug (ARGS=... names some patches)
	@$(BIN)/python tests/prove/prove.py $(ARGS)

bench: $(VENV)/built $(VENV)/bench-tools  ## measure lonc beside other brokers, some minutes
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(VENV)/built $(VENV)/bench-tools  ## the same in under a minute
	@$(BIN)/python -m bench --quick $(ARGS)

# The extension is built with tracing in a copy: it is many times slower, and must not stay in the tree.
# A test that looks at a bare interpreter fails while it is measured; the figures come all the same.
coverage: $(VENV)/built $(VENV)/test-tools  ## which lines the tests run, those of the .pyx too
	rm -rf build/coverage && mkdir -p build/coverage
	cp -R pyproject.toml setup.py README.md LICENSE lonc tests build/coverage
	cd build/coverage && LONC_TRACE=1 LONC_BUILD_EXT=require $(BIN)/python setup.py -q build_ext --inplace
	-cd build/coverage && PYTHONPATH="$$PWD" COVERAGE_CORE=ctrace $(BIN)/python -m pytest --cov \
	    --cov-config=tests/build/coverage.ini --ignore=tests/build --ignore=tests/prove $(ARGS)

# For release: an sdist, a wheel for every CPython, and one for every Python. The same source gives the
# same wheels; the date in them, unless one is given, is the first that a zip file can hold.
dist: $(VENV)/built  ## release files in dist/
	rm -rf build dist
	$(BIN)/python setup.py -q sdist
	export SOURCE_DATE_EPOCH="$${SOURCE_DATE_EPOCH:-315532800}" CFLAGS="$${CFLAGS--g0}"; \
	LONC_ABI3=1 LONC_BUILD_EXT=require $(BIN)/pip wheel -q --no-build-isolation --no-deps -w dist . && \
	LONC_BUILD_EXT=no $(BIN)/pip wheel -q --no-build-isolation --no-deps -w dist .
	@ls -l dist

# Debian's Python has its own idea of a prefix: it puts what goes to /usr into /usr/local, unless it is told
# that a package is made, and adds "local" itself.
install:  ## install for $(PYTHON) under PREFIX, below DESTDIR
	@if $(PYTHON) -c 'import sysconfig, sys; sys.exit("posix_local" not in sysconfig.get_scheme_names())'; \
	then case "$(PREFIX)" in \
	    /usr/local) set -- --prefix=/usr ;; \
	    *) export DEB_PYTHON_INSTALL_LAYOUT=deb; set -- --prefix="$(PREFIX)" ;; esac; \
	else set -- --prefix="$(PREFIX)"; fi; \
	$(PYTHON) -m pip install --no-deps --ignore-installed --root="$(DESTDIR)/" "$$@" $(ARGS) .

clean:  ## remove all that was built, the virtual environments too
	rm -rf build dist lonc.egg-info .venv .venv-3.* .mypy_cache .ruff_cache .coverage
	rm -f lonc/_fastpath.c lonc/_fastpath*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Python files are used where they stand; only a change of these needs another build.
$(VENV)/built: $(VENV)/build-tools pyproject.toml setup.py lonc/__init__.py lonc/_fastpath.pyx
	@echo "Building lonc._fastpath ..."
	@$(BIN)/pip install -q --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/build-tools:
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q 'setuptools>=66.1' 'Cython>=0.29.32' wheel
	@touch $@

$(VENV)/test-tools: $(VENV)/build-tools
	@$(BIN)/pip install -q pytest pytest-cov
	@touch $@

# Pinned, so that a new rule of theirs does not fail an old checkout.
$(VENV)/lint-tools: $(VENV)/build-tools
	@$(BIN)/pip install -q ruff==0.17.6 mypy==2.4.1
	@touch $@

# uvloop is one of those compared; where it cannot be installed, bench goes on without.
$(VENV)/bench-tools: $(VENV)/build-tools
	@$(BIN)/pip install -q uvloop || echo "No uvloop to compare with."
	@touch $@
