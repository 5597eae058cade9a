# Everything that is done with this repository. `make` alone lists it.

CARGO  ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

# What `make run` seeds and where: make run LIBRARY=/srv/torrents PORT=7000 OPTIONS=-v
LIBRARY ?= $(TARGET)/sample
PORT    ?= 6969
OPTIONS ?=

# What is built: `release`, or `dev`, which is faster to build and slower to run. The tests of the
# package use `dev`.
PROFILE ?= release
BUILT   := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# What `make attack` is to do: make attack ATTACK='--only metadata --from one'
ATTACK ?=

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 60

# Where `make install` puts things. DESTDIR stands before all of them and is written into none.
PREFIX      ?= /usr/local
BINDIR      ?= $(PREFIX)/bin
DATADIR     ?= $(PREFIX)/share
MANDIR      ?= $(DATADIR)/man
DOCDIR      ?= $(DATADIR)/doc/hekate
# Hekate looks for its configuration in /etc, wherever it lies itself.
SYSCONFDIR  ?= /etc
UNITDIR     ?= $(PREFIX)/lib/systemd/system
BASHCOMPDIR ?= $(DATADIR)/bash-completion/completions
ZSHCOMPDIR  ?= $(DATADIR)/zsh/site-functions
FISHCOMPDIR ?= $(DATADIR)/fish/vendor_completions.d
INSTALL     ?= install

.PHONY: help run build install uninstall deb static quick test test-deps test-packages \
	test-clients test-trackers test-build test-binaries test-static lint check bench bench-seeders bench-quick \
	 bench-pairs bench-library bench-announce bench-swarm attack interop deny fuzz mutants size docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run:  ## build, then seed a small sample library (or LIBRARY=DIR) until Ctrl-C
	$(CARGO) build --release --locked --bin hekate --example make-library
	@test '$(LIBRARY)' != '$(TARGET)/sample' || test -d '$(TARGET)/sample' \
		|| '$(TARGET)/release/examples/make-library' --out '$(TARGET)/sample' \
		|| { rm -rf '$(TARGET)/sample'; exit 1; }
	@torrent=$$(find -L '$(LIBRARY)' -name '*.torrent' -print -quit); \
	printf '%s\n' '' \
		'Hekate seeds $(LIBRARY) on port $(PORT) until you press Ctrl-C.' \
		'' \
		'To download from it, in a second terminal (any BitTorrent client will do):' \
		'' \
		'    sudo apt-get install python3-libtorrent' \
		"    /usr/bin/python3 tests/clients/libtorrent_leech.py '$$torrent' /tmp/out --peer 127.0.0.1:$(PORT)" \
		'' \
		'To see what is served:      $(TARGET)/release/hekate seed --list $(LIBRARY)' \
		'To seed your own library:   make run LIBRARY=/path/to/torrents' \
		''
	@exec '$(TARGET)/release/hekate' seed --port $(PORT) $(OPTIONS) '$(LIBRARY)'

build:  ## build what is installed, optimized
	$(CARGO) build --profile $(PROFILE) --locked --bins

# Built only when it is not there, so that `make build && sudo make install` needs no Rust for root.
$(BUILT)/hekate $(BUILT)/hekate-swarm:
	$(MAKE) build

# A configuration that is there is somebody's, so the new one is put beside it.
install: $(BUILT)/hekate $(BUILT)/hekate-swarm  ## install below PREFIX (and DESTDIR)
	$(INSTALL) -d $(addprefix '$(DESTDIR),$(addsuffix ',$(BINDIR) $(MANDIR)/man1 $(MANDIR)/man5 \
		$(DOCDIR) $(SYSCONFDIR)/hekate $(SYSCONFDIR)/init.d $(SYSCONFDIR)/default \
		$(SYSCONFDIR)/logrotate.d $(UNITDIR) $(BASHCOMPDIR) $(ZSHCOMPDIR) $(FISHCOMPDIR)))
	$(INSTALL) -m 0755 $^ '$(DESTDIR)$(BINDIR)'
	$(INSTALL) -m 0644 dist/man/*.1 '$(DESTDIR)$(MANDIR)/man1'
	$(INSTALL) -m 0644 dist/man/*.5 '$(DESTDIR)$(MANDIR)/man5'
	$(INSTALL) -m 0644 dist/completions/bash/* '$(DESTDIR)$(BASHCOMPDIR)'
	$(INSTALL) -m 0644 dist/completions/zsh/* '$(DESTDIR)$(ZSHCOMPDIR)'
	$(INSTALL) -m 0644 dist/completions/fish/* '$(DESTDIR)$(FISHCOMPDIR)'
	$(INSTALL) -m 0644 README.md CHANGELOG.md LICENSE docs/OPERATING.md dist/grafana.json \
		dist/alerts.yml '$(DESTDIR)$(DOCDIR)'
	$(INSTALL) -m 0644 dist/hekate.logrotate '$(DESTDIR)$(SYSCONFDIR)/logrotate.d/hekate'
	$(INSTALL) -m 0644 dist/hekate.default '$(DESTDIR)$(SYSCONFDIR)/default/hekate'
	sed 's|/usr/bin/hekate|$(BINDIR)/hekate|' dist/hekate.init >'$(DESTDIR)$(SYSCONFDIR)/init.d/hekate'
	chmod 0755 '$(DESTDIR)$(SYSCONFDIR)/init.d/hekate'
	sed 's|/usr/bin/hekate|$(BINDIR)/hekate|' dist/hekate.service >'$(DESTDIR)$(UNITDIR)/hekate.service'
	chmod 0644 '$(DESTDIR)$(UNITDIR)/hekate.service'
	$(INSTALL) -m 0644 dist/hekate.socket '$(DESTDIR)$(UNITDIR)'
	@toml='$(DESTDIR)$(SYSCONFDIR)/hekate/hekate.toml'; test ! -e "$$toml" || toml="$$toml.new"; \
	$(INSTALL) -m 0644 dist/hekate.toml "$$toml" && echo "configuration: $$toml"

# What may have been written since stays: the configuration, the state, the log, the user.
uninstall:  ## remove what `make install` has put there, but for the configuration
	rm -f '$(DESTDIR)$(BINDIR)/hekate' '$(DESTDIR)$(BINDIR)/hekate-swarm' \
		$(patsubst dist/man/%.1,'$(DESTDIR)$(MANDIR)/man1/%.1',$(wildcard dist/man/*.1)) \
		'$(DESTDIR)$(MANDIR)/man5/hekate.toml.5' \
		$(patsubst dist/completions/bash/%,'$(DESTDIR)$(BASHCOMPDIR)/%',$(wildcard dist/completions/bash/*)) \
		$(patsubst dist/completions/zsh/%,'$(DESTDIR)$(ZSHCOMPDIR)/%',$(wildcard dist/completions/zsh/*)) \
		$(patsubst dist/completions/fish/%,'$(DESTDIR)$(FISHCOMPDIR)/%',$(wildcard dist/completions/fish/*)) \
		'$(DESTDIR)$(SYSCONFDIR)/init.d/hekate' '$(DESTDIR)$(SYSCONFDIR)/logrotate.d/hekate' \
		'$(DESTDIR)$(SYSCONFDIR)/default/hekate' '$(DESTDIR)$(SYSCONFDIR)/hekate/hekate.toml.new' \
		'$(DESTDIR)$(UNITDIR)/hekate.service' '$(DESTDIR)$(UNITDIR)/hekate.socket'
	rm -rf '$(DESTDIR)$(DOCDIR)'

# A tool of the project's own is kept with what is built.
TOOLS     := $(abspath $(TARGET))/tools
CARGO_DEB := 3.8.0

# Without the first, cargo-deb makes a package that depends on nothing; the other packs it.
.PHONY: deb-deps
deb-deps:
	@command -v dpkg-shlibdeps >/dev/null && command -v xz >/dev/null \
		|| { echo 'The package is made with dpkg-shlibdeps and xz: apt-get install dpkg-dev' >&2; exit 1; }

# The changelogs go beside the binaries, since cargo-deb looks for what was built there, wherever that is.
# Whoever makes a package answers for it, by the variables that Debian's own tools read.
deb: deb-deps build $(TOOLS)/cargo-deb-$(CARGO_DEB)  ## build the Debian package, in target/debian (installs cargo-deb in target/)
	@gzip -9nc CHANGELOG.md >'$(BUILT)/changelog.gz'
	@maintainer="$${DEBFULLNAME:-Hekate developers} <$${DEBEMAIL:-hekate@localhost}>"; \
	sed "s|^ -- .*>| -- $$maintainer|" dist/debian/changelog | gzip -9nc >'$(BUILT)/changelog.Debian.gz' \
		&& '$(TOOLS)/bin/cargo-deb' --locked --no-build --strip --profile $(PROFILE) \
			--maintainer "$$maintainer" $(DEB_OPTIONS)

# Unoptimized: it runs for a second, and building it takes longer.
$(TOOLS)/cargo-deb-$(CARGO_DEB):
	$(CARGO) install --quiet --debug --locked --no-default-features --root '$(TOOLS)' cargo-deb@$(CARGO_DEB)
	@touch '$@'

# For an image without anything else in it: the Dockerfile does this too.
static: MUSL := $(shell uname -m)-unknown-linux-musl
static:  ## build hekate as one static file, in target/…-musl (needs musl-tools and the Rust target)
	$(CARGO) build --profile $(PROFILE) --locked --no-default-features --bin hekate --target $(MUSL)

# Installing waits for the network and compiling for the processor, so they go side by side.
test:  ## install what the tests need, then run every test
	+@$(MAKE) --no-print-directory -j2 test-deps test-build
	@CARGO='$(CARGO)' tests/run.py

# What people run all the time. It starts no other program and opens no socket but of this machine.
quick:  ## the tests that need nothing installed and take less than a minute once built
	$(CARGO) test --locked --lib --bins --test tidy --test docs --test simulation --test loopback

# Debian's names for what the tests start; `ip` and `unshare` give each client a network of its own.
TEST_PACKAGES := strace transmission-cli aria2 rtorrent qbittorrent-nox python3-libtorrent \
	opentracker nginx-light bindfs iproute2 util-linux bsdutils chromium man-db bash zsh fish shellcheck \
	systemd systemd-container logrotate lintian musl-tools openssl
# What comes from npm is kept with what is built.
CLIENTS := $(abspath $(TARGET))/clients
# What comes from crates.io as well: trackers that are not in Debian. Their own lock files name a
# crate that compilers of today refuse, so they are built without.
TRACKERS := $(abspath $(TARGET))/trackers

# What the tests need beside Rust. Nothing is done where all is there.
test-deps: test-packages test-clients test-trackers  ## install the BitTorrent clients and the tracker that the tests use

# node may come from elsewhere than Debian. The service that comes with opentracker would take
# Hekate's port.
test-packages:
	@missing=; for package in $(TEST_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q ' installed$$' \
			|| missing="$$missing $$package"; \
	done; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	test -n "$$missing" || exit 0; \
	command -v apt-get >/dev/null \
		|| { echo "Not Debian: please install what Debian calls$$missing." >&2; exit 1; }; \
	as_root=; test "$$(id -u)" = 0 || as_root=sudo; \
	echo "Installing$$missing"; \
	$$as_root apt-get update -q \
		&& $$as_root env DEBIAN_FRONTEND=noninteractive \
			apt-get install -q -y --no-install-recommends $$missing || exit 1; \
	case "$$missing" in *opentracker*) \
		test ! -d /run/systemd/system || $$as_root systemctl disable --now opentracker;; \
	esac

test-clients: test-packages
	@NODE_PATH='$(CLIENTS)/node_modules' node -e 'require("webtorrent"), require("bittorrent-tracker")' >/dev/null 2>&1 \
		|| npm install --prefix '$(CLIENTS)' --omit=optional --ignore-scripts --no-audit --no-fund webtorrent@1 bittorrent-tracker@9

test-trackers: test-packages
	@test -x '$(TRACKERS)/bin/aquatic_http' && test -x '$(TRACKERS)/bin/aquatic_udp' \
		|| $(CARGO) install --quiet --root '$(TRACKERS)' aquatic_http@0.9.0 aquatic_udp@0.9.0

# What the tests run is built before the first of them, so that none competes with the compiler.
test-build: test-binaries test-static

test-binaries:
	$(CARGO) test --quiet --locked --no-run

# With musl's compiler, and behind the other build, which holds the lock.
test-static: test-packages test-binaries
	@! command -v rustup >/dev/null || rustup --quiet target add "$$(uname -m)-unknown-linux-musl"
	$(MAKE) --no-print-directory PROFILE=dev static '$(TOOLS)/cargo-deb-$(CARGO_DEB)'

# The fuzz targets are compiled only: running them needs cargo-fuzz (make fuzz). One target directory
# and one profile for all, so that little is built twice.
lint:  ## formatting, lints, documentation, the compile of the fuzz targets
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --locked --no-deps
	$(CARGO) check --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir '$(TARGET)'

# The advisories are left to `make deny`, since they need the network.
check:  ## what a change must pass: formatting, lints, tests, documentation, licences
	+@$(MAKE) --no-print-directory -j2 test-deps lint test-build
	@CARGO='$(CARGO)' tests/run.py
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check licenses bans sources; \
	else \
		echo 'cargo-deny is not installed: licences, duplicates and sources were not checked (make deny)'; \
	fi

# Everything that has a bar. Nothing else should run meanwhile.
bench: bench-seeders bench-library bench-announce  ## measure everything, 45 minutes (9 GB of disk)

# The seeder has one processor, the swarm another.
bench-seeders:  ## compare every installed seeder, about 20 minutes; the report goes to docs/benchmarks/
	$(CARGO) build --release --locked --bins
	python3 tests/bench/compare.py

bench-quick:  ## the same within five minutes; the report goes to target/bench/report/
	$(CARGO) build --release --locked --bins
	python3 tests/bench/compare.py --quick --out '$(TARGET)/bench/report'

# What a change costs: BEFORE is a `hekate` that was built without it.
bench-pairs:  ## compare this build with another in turn: make bench-pairs BEFORE=/path/to/hekate
	@test -n '$(BEFORE)' || { echo 'BEFORE=/path/to/hekate names the build to compare with' >&2; exit 1; }
	$(CARGO) build --release --locked --bins
	python3 tests/bench/pairs.py --before '$(BEFORE)' --after '$(TARGET)/release/hekate' \
		--swarm '$(TARGET)/release/hekate-swarm' --data '$(TARGET)/bench'

bench-library:  ## measure the index: 200,000 torrent files, 20 million in an index (6 GB of disk)
	$(CARGO) build --release --locked --bins --example make-library --example make-index --example bench-library
	@place='$(TARGET)/bench/library'; tools='$(TARGET)/release/examples'; mkdir -p "$$place" && \
	{ test -d "$$place/small" || "$$tools/make-library" --out "$$place/small" --torrents 200000 --pieces 400 --piece-length 16384 --sparse; } && \
	{ test -d "$$place/content" || "$$tools/make-library" --out "$$place/content" --torrents 20 --pieces 1600 >/dev/null; } && \
	'$(TARGET)/release/hekate' index "$$place/small" -o "$$place/small.index" && \
	"$$tools/make-index" --out "$$place/large.index" --over "$$place/small.index" --torrents 19800000 && \
	"$$tools/bench-library" --library "$$place/small" --index "$$place/large.index" --verify "$$place/content" --live "$$place/content"

bench-announce: test-deps  ## announce to real trackers, 15 minutes (2 GB of disk); prints a table
	$(CARGO) build --release --locked --bins --example make-index --example bench-announce
	@'$(TARGET)/release/examples/bench-announce'

LIBTORRENT := 2.1.1
PYTHON     := $(abspath $(TARGET))/python

# One host for each leecher takes network namespaces, and those take root.
bench-swarm: TEST_PACKAGES += transmission-daemon python3-venv
bench-swarm: test-packages $(PYTHON)/libtorrent-$(LIBTORRENT)  ## how soon a swarm behind a line has a copy, an hour; the report goes to docs/benchmarks/ (needs root, 6 GB in /dev/shm)
	$(CARGO) build --release --locked --bin hekate
	python3 tests/bench/swarm.py --hekate '$(TARGET)/release/hekate' --data '$(TARGET)/bench' --out docs/benchmarks

# What people use. Debian's is years older, and leeches worse.
$(PYTHON)/libtorrent-$(LIBTORRENT):
	/usr/bin/python3 -m venv '$(PYTHON)'
	'$(PYTHON)/bin/pip' install --quiet libtorrent==$(LIBTORRENT)
	@touch '$@'

# Networks of their own take root, or a kernel with user namespaces.
attack: test-packages  ## attack a daemon beside honest peers, about 40 minutes; prints a table
	$(CARGO) build --release --locked --bin hekate --example attack
	'$(TARGET)/release/examples/attack' --hekate '$(TARGET)/release/hekate' $(ATTACK)

# One after the other: each is measured.
interop: test-deps  ## run every client at its default settings and with encryption, 15 minutes; the table goes to docs/INTEROP.md
	rm -rf '$(TARGET)/tmp/interop'
	$(CARGO) test --locked --test clients -- --ignored --test-threads 1 interop
	python3 tests/tools/interop.py '$(TARGET)/tmp/interop' docs/INTEROP.md

deny:  ## check dependencies: advisories, licences, duplicates, sources (installs cargo-deny)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny@0.20.2
	$(CARGO) deny --locked check

# Without a sanitizer a stable compiler will do: the parsers are safe Rust, and what is looked for
# is a panic, an overflow or a hang. What is found of interest is kept in fuzz/found, which is not
# committed; the inputs in fuzz/corpus are, and tests/corpus.rs runs them.
fuzz:  ## run each fuzz target for FUZZ_SECONDS (installs cargo-fuzz)
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz@0.13.2
	@for target in $$($(CARGO) fuzz list); do \
		echo "== $$target"; \
		mkdir -p "fuzz/found/$$target"; \
		$(CARGO) fuzz run --sanitizer none "$$target" "fuzz/found/$$target" "fuzz/corpus/$$target" \
			-- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# The pure core, as a crate of its own: it builds in seconds, and it would not build if one of its
# modules used a socket, a thread or the loop. The copy is changed in place, so that its dependencies
# are compiled once. .cargo/mutants.toml lists what no test can tell from the original, with reasons.
CORE          := bencode choker peer rate sys timers torrent wire
MUTATED       ?= timers choker bencode torrent/layout torrent/metainfo peer/session
MUTANTS       := $(abspath $(TARGET))/mutants
CARGO_MUTANTS := 27.1.0

mutants: $(TOOLS)/cargo-mutants-$(CARGO_MUTANTS)  ## change the pure core line by line and see that a test fails, an hour (installs cargo-mutants in target/)
	rm -rf '$(MUTANTS)/src' && mkdir -p '$(MUTANTS)/src'
	cp -r $(wildcard $(addprefix src/,$(CORE) $(addsuffix .rs,$(CORE)))) '$(MUTANTS)/src'
	for module in $(CORE); do echo "pub mod $$module;"; done >'$(MUTANTS)/src/lib.rs'
	{ sed -n '/^\[package\]/,/^edition/p; /^\[dependencies\]/,/^$$/p; /^\[dev-dependencies\]/,/^$$/p' Cargo.toml; \
		printf '%s\n' '[profile.dev]' 'debug = false' '[workspace]'; } >'$(MUTANTS)/Cargo.toml'
	cp Cargo.lock '$(MUTANTS)'
	PATH='$(TOOLS)/bin':"$$PATH" CARGO_TARGET_DIR='$(MUTANTS)/target' nice -n 19 $(CARGO) mutants --in-place \
		--dir '$(MUTANTS)' --config .cargo/mutants.toml --output '$(MUTANTS)' --cap-lints true \
		$(foreach file,$(MUTATED),--file src/$(file).rs)

$(TOOLS)/cargo-mutants-$(CARGO_MUTANTS):
	$(CARGO) install --quiet --debug --locked --root '$(TOOLS)' cargo-mutants@$(CARGO_MUTANTS)
	@touch '$@'

# What is counted, and what is not, stands in the script.
size:  ## count the lines of the program, without tests, comments and blank lines
	@python3 tests/tools/size.py

# The test that compares them writes them when it is told to.
docs:  ## write what comes from the code: tables in docs/, manual and completions in dist/
	HEKATE_WRITE_DOCS=1 $(CARGO) test --locked --test docs -q the_tables_of
	HEKATE_WRITE_DOCS=1 $(CARGO) test --locked --test manual -q the_files_of_dist

clean:  ## remove everything that was built
	$(CARGO) clean
