# The race detector needs a C compiler; go env says whether there is one.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
TOOL := go tool -modfile=internal/tools/go.mod
LINT := $(TOOL) golangci-lint
VALE := go tool -modfile=internal/tools/vale.mod vale --config=internal/docs/vale/.vale.ini --output=line

.PHONY: demo test unit e2e clusters breakages exercises outputs docs pages page playground-site stories walk lint help

# The flags of cluster/, so that client-go is compiled once for the control plane, the demo, and what the
# tests run, and once more for the race detector. They compile faster than Go's own. The tags make the
# packages the same with and without cgo, which the race detector needs.
QUICK := -trimpath -tags=netgo,osusergo '-gcflags=all=-l -dwarf=false'
demo unit e2e clusters exercises: export GOFLAGS += $(QUICK)
demo: ## chapter 05 at work on a cluster: CLUSTER=auto, kind, local or current
	@cores=$$(getconf _NPROCESSORS_ONLN); echo "Compiling client-go: the first time for about $$(( (cores + 3) / cores )) min on the $$cores cores here." \
		"Then a cluster starts, and chapter 05 on it."
	@go run ./internal/demo

test: unit e2e clusters ## all tests, on the same choice of clusters

# The detector panics when a handler changes an object of the store.
unit: export KUBE_CACHE_MUTATION_DETECTOR = true
unit: ## all tests that need no cluster
	go test $(RACE) $$(go list ./... | grep -v -e /e2e -e /internal/lint$$ -e /internal/exercises$$)

# docs/older compiles the client-go of other years, from an empty build cache for longer than the 10
# minutes that a test may take, internal/docs a browser's driver, and controller-runtime what
# docs/scale.md measures. vale, which checks the English, needs a C compiler.
pages: page ## hold docs and READMEs to code, links, claims, spelling and English; look at them in Chromium
	go -C internal/docs vet ./... && go -C internal/docs test ./...
	go -C internal/docs run ./draw -check
	go -C internal/docs run ./check -check
	go -C internal/docs run ./browser
	cd internal/docs/browser && npx --no-install cspell --no-progress --config ../cspell.yaml
	$(VALE) $$(git ls-files '*.md' '*.go' ':!*/testdata/*')
	go -C docs/older test -timeout 40m ./... && go -C controller-runtime test ./...

# A folder for a static host. page checks that what is committed is what the sources give.
playground-site: ## write the playground to SITE, for a static host
	go run ./playground --site $(or $(SITE),playground-site)

stories: ## play the playground's stories in Chromium, on a control plane from cluster/
	go -C internal/docs test -count=1 -tags cluster -run TestStoriesWithRealTime ./playground

page: ## build the playground's page again: fails if what is committed differs
	cd playground/page && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run build
	git diff --exit-code -- playground/page/dist

# costs takes half an hour and 14 GB of memory: make docs RECORD=costs
RECORD = life-kind life-local lister resync scale synced wire
docs: ## record again and draw; RECORD names the recordings
	$(if $(RECORD),go run ./internal/recordings $(RECORD))
	go test -count=1 ./docs/proofs -args --update
	go test -count=1 ./e2e -run 'TestFrames|Own|Stale' -args --update
	go -C internal/docs run ./draw
	go -C internal/docs run ./check

walk: ## run the commands of the front page, as a reader does
	.ci/walk

lint: ## go vet, gofmt, actionlint, golangci-lint, and the proof that they find something
	GOOS=js GOARCH=wasm go vet ./playground/wasm
	go vet ./... && go -C cluster vet ./... && go -C exercises vet ./... && go -C controller-runtime vet ./...
	@files=$$(gofmt -l .); test -z "$$files" || { echo "gofmt these: $$files" >&2; exit 1; }
	$(TOOL) actionlint .github/workflows/*.yml
	$(LINT) run
	cd cluster && $(subst internal,../internal,$(LINT)) run
	cd exercises && $(subst internal,../internal,$(LINT)) run
	cd controller-runtime && $(subst internal,../internal,$(LINT)) run
	cd internal/docs && $(subst internal,..,$(LINT)) run
	go test -count=1 ./internal/lint

e2e: ## the chapters and the demo on a cluster; ARGS are passed to the suite
	go test -count=1 -timeout 40m ./e2e -args $(ARGS)

# The tests of cluster/, and the chapters' tests on an API server, build Kubernetes, so they run only
# with CLUSTER=local. The tests of internal/provider that create real clusters need kind or local.
clusters: TAGS := cluster,netgo,osusergo
clusters: ## how clusters come and go, if CLUSTER is kind or local
	$(if $(filter kind local,$(CLUSTER)),go test -count=1 ./internal/provider -args -cluster $(CLUSTER))
	$(if $(filter local,$(CLUSTER)),go -C cluster test $(RACE) -timeout 40m ./...)
	$(if $(filter local,$(CLUSTER)),go test -count=1 -timeout 40m -tags $(TAGS) ./[0-9]*-*)

# Three at a time, because they mostly wait.
breakages: ## break chapters on purpose: the e2e suite has to fail each time
	go test -count=1 -timeout 40m -parallel 3 -v ./e2e/breakages

exercises: ## the exercises fail as given and pass with their solutions
	go test -count=1 -timeout 20m ./internal/exercises

outputs: ## rewrite the outputs and the diffs in the READMEs and in docs
	go test -count=1 ./internal/promises -args --update
	go test -count=1 ./docs/proofs -args --update
	go test -count=1 ./internal/exercises -run TestLoop -args --update
	go test -count=1 ./e2e -run 'TestOutputs|TestDemo$$' -args --update

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1: \2/p' $(MAKEFILE_LIST)
