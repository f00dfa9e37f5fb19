# The detector panics when a handler changes an object of the store.
export KUBE_CACHE_MUTATION_DETECTOR = true

# The race detector needs a C compiler; go env knows whether there is one.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)
LINT := go tool -modfile=internal/tools/go.mod golangci-lint

.PHONY: help unit lint e2e

help: ## what there is to make
	@sed -n 's/^\([a-z0-9]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

unit: ## all tests that need no cluster
	go test $(RACE) $$(go list ./... | grep -v -e /e2e$$ -e /internal/lint$$)

lint: ## go vet, gofmt, golangci-lint, and the proof that it finds something
	go vet ./...
	@files=$$(gofmt -l .); test -z "$$files" || { echo "gofmt these: $$files" >&2; exit 1; }
	$(LINT) run
	go test -count=1 ./internal/lint

e2e: ## the chapters on a kind cluster of their own
	go test -count=1 -timeout 10m ./e2e
