# Everything a person or a machine does here is one target; `make help` lists
# them. Only Go is assumed: tools run through `go run` at the version in go.mod
# (benchstat at that in loadtest/bench-compare).

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

BINARIES := nucleicd vaccined displayd middlestored backboned qianma
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS  := -X main.version=$(VERSION) -X qianma/cluster/node.Version=$(VERSION) -X qianma/loadtest/report.version=$(VERSION)
DATA     ?= ./data
ARGS     ?=
FUZZTIME ?= 10s

# How many drills the short suite runs (chaos/suite.go).
CI_DRILLS := 8

# Everything is pure Go. One setting for building and testing also means that a
# fresh machine compiles each dependency once; only the race detector needs C.
export CGO_ENABLED := 0

# The compiler is told what a province spends its time with (services/profile).
# For tests too, so that each dependency is still compiled once.
export GOFLAGS := $(GOFLAGS) '-pgo=$(CURDIR)/services/province.pgo'

# Packages whose goroutines share state: they also run under the race detector.
# The rest is plain functions, or whole processes that the detector cannot see
# into; `make race RACE=./...` runs it over everything.
# Those that take longest come first: one that starts last stretches the end.
RACE ?= ./loadtest/... ./cluster/replica ./middle-store/... ./cluster/registry ./cluster/node ./chaos/... \
        ./cluster/breaker ./cluster/broker ./cluster/compaction ./cluster/feed/... ./cluster/mux ./cluster/pki \
        ./cluster/raftlog ./cluster/rpc ./cluster/web ./display/api ./display/source ./services/qianma/internal/...

# Packages whose tests hold elections, or wait for a broker or a store. They go
# before the rest, with nothing compiled beside them: a compiler takes the time in
# which a leader has to be heard. What passed is not run again with the rest; Go
# remembers it.
ELECTIONS := ./cluster/replica ./cluster/backbone ./cluster/node ./cluster/registry ./cluster/broker

# Three packages at a time on two cores, because many tests wait. Each package is
# linked for its test, which takes longer than most tests do: without the tables
# for debuggers, and without the vetting that `make check` does over everything.
TESTFLAGS := -p 3 -vet=off -ldflags=-w

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build all binaries into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ $(BINARIES:%=./services/%)

.PHONY: up
up: build ## bring a province up in DATA (./data) and keep it up; ARGS go to qianma up
	@exec bin/qianma up --data $(DATA) $(ARGS)

.PHONY: down
down: ## stop the province in DATA
	@bin/qianma down --data $(DATA)

.PHONY: test
test: check unit race system drill-ci ## everything: format, vet, staticcheck, tests, race, arrows, real processes

.PHONY: check
check: ## gofmt, vet, staticcheck
	@echo '== gofmt'; bad=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	  if [ -n "$$bad" ]; then echo "not formatted: $$bad"; exit 1; fi
	@echo '== vet'; go vet ./... && go vet -tags system ./services/...
	@echo '== staticcheck'; go run honnef.co/go/tools/cmd/staticcheck ./...

.PHONY: unit
unit: ## unit tests, and the test of the arrows between folders
	@echo '== unit tests'; go build ./...
	go test $(TESTFLAGS) -timeout 20m $(ELECTIONS)
	go test $(TESTFLAGS) -timeout 20m ./services/qianma ./...

.PHONY: race
race: ## the packages that share state, under the race detector
	@if command -v $${CC:-gcc} >/dev/null; then echo '== race'; export CGO_ENABLED=1; \
	    go build -race $(RACE) && \
	    go test -race -short $(TESTFLAGS) -timeout 20m $(or $(filter $(ELECTIONS),$(RACE)),$(ELECTIONS)) && \
	    go test -race -short $(TESTFLAGS) -timeout 20m $(RACE); \
	  elif [ -n "$$CI" ]; then echo 'race: no C compiler; under CI that is a failure'; exit 1; \
	  else echo 'race: skipped, because the race detector needs a C compiler and there is none'; fi

.PHONY: system
system: build ## real processes, both carriers: kills, losses, cuts
	@echo '== system tests'; QIANMA_BIN=$(CURDIR)/bin go test -tags system -count 1 -timeout 30m ./services/systemtest/...

.PHONY: drill-ci
drill-ci: build ## the short suite of drills on a province of its own
	@echo '== drills'; rm -rf drill-reports; code=0; bin/qianma drill suite ci --report drill-reports || code=$$?; \
	  if [ $$code = 1 ] && [ "$$(ls drill-reports/*/report.json 2>/dev/null | wc -l)" -ge $(CI_DRILLS) ]; then \
	    echo 'an objective of time was missed and no invariant broken: speed is judged by make drills, on a quiet machine'; \
	  else exit $$code; fi

.PHONY: drills
drills: build ## every drill, on a province of its own; the failure table as measured is drill-reports/index.html
	bin/qianma drill suite nightly --report drill-reports

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME (10s)
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6- | sort -u); do \
	    echo "== $$dir $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$dir; done; done

.PHONY: bench
bench: ## every micro-benchmark
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-compare
bench-compare: ## micro-benchmarks of BASE=<revision> and of this tree in turn, told apart by benchstat (COUNT, BENCH, PKGS, TIME, LIMIT)
	@loadtest/bench-compare

.PHONY: profile
profile: ## take services/province.pgo anew, by which builds are optimised: four minutes of load (SECONDS_EACH, SCAN, BATCH, DISPLAYS)
	@services/profile

.PHONY: bench-peers
bench-peers: build ## ours and the peers alternately under one schedule, settings, ratios of medians (ROUNDS, CONFIRM, PROBE, PEERS, WORKERS)
	@DATA=$(DATA) QIANMA=bin/qianma loadtest/bench-peers

.PHONY: bench-goals
bench-goals: build ## the table of goals against the province in DATA, short; as they are stated, and more: see the head of loadtest/bench-goals (DURATION, ROUNDS, SCAN, BATCH, DISPLAYS, DAY, PEOPLE, BACK, GOALS)
	@DATA=$(DATA) QIANMA=bin/qianma loadtest/bench-goals

.PHONY: bench-outside
bench-outside: build ## wrk and our generator ask the province in DATA for codes, alternately; as root it installs wrk (ROUNDS, PROBE, PEOPLE, OPEN)
	@DATA=$(DATA) QIANMA=bin/qianma loadtest/bench-outside

.PHONY: bench-growth
bench-growth: build ## what a display and a test cost as the population grows, restarts, a rebuild (STEPS, FILL, ROUNDS, PROBE)
	@QIANMA=bin/qianma loadtest/bench-growth

.PHONY: bench-surge
bench-surge: build ## the most that the province in DATA completes, then twice that from a tenth of it within a minute (STEPS, PROBE, SURGE, TIMES, PEOPLE)
	@DATA=$(DATA) QIANMA=bin/qianma loadtest/bench-surge

.PHONY: clean
clean: ## remove what was built (never data)
	rm -rf bin
