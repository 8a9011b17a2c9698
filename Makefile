# The pipeline. `make demo` and `make test` need nothing before them; `make help` lists everything.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# ---- set-up: a Python environment for LibTorch and cmake, then the release binaries --------------------------------

BIN := $(or $(CARGO_TARGET_DIR),target)/release
PIP := .venv/bin/pip --quiet --disable-pip-version-check
# cmake >= 3.26 comes with the environment; it must be found before an older one.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# A LibTorch of your own (LIBTORCH=/path/to/libtorch) is used as it is.
OWN_LIBTORCH := $(LIBTORCH)

.PHONY: setup setup-python build help
setup: build ## Install what the build needs into .venv and build the release binaries

.venv/ready: requirements.txt
	@for tool in python3 cc c++ cargo; do command -v $$tool >/dev/null || { echo "make setup needs $$tool, which is not installed" >&2; exit 1; }; done
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "make setup needs Python's venv module (Debian: python3-venv)" >&2; exit 1; }
	python3 -m venv .venv
ifeq ($(OWN_LIBTORCH),)
	$(PIP) install --no-deps -r requirements.txt
	ln -sfn "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch" .venv/libtorch
else
	$(PIP) install "$$(grep '^cmake==' requirements.txt)"
endif
	touch $@

build: .venv/ready
	cargo build --release --locked --workspace --bins

setup-python: .venv-python/ready ## Install the full PyTorch for the scripts in scripts/ (about 5 GB)

.venv-python/ready: requirements-python.txt
	python3 -m venv .venv-python
	.venv-python/bin/pip --quiet --disable-pip-version-check install -r requirements-python.txt
	touch $@

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# ---- the networks of the demo: one ResNet-20 per task, each from its own initialisation ----------------------------

FASHION := data/fashion-mnist
TRAIN := --arch resnet20 --width 1 --epochs 10 --no-flip --shift 0
# The pair by its seeds: 1_2, 3_4 or 5_6.
SEEDS ?= 1_2
FIRST = $(firstword $(subst _, ,$(SEEDS)))
SECOND = $(lastword $(subst _, ,$(SEEDS)))
CHECKPOINTS := data/checkpoints/fashion_0-4_seed$(FIRST).safetensors data/checkpoints/fashion_5-9_seed$(SECOND).safetensors

.PHONY: checkpoints
checkpoints: build ## Train the demo's two networks again (a quarter of an hour on a core; interrupt and resume as you like)
	$(BIN)/train $(TRAIN) --data $(FASHION) --classes 0-4 --seed $(FIRST) -o $(firstword $(CHECKPOINTS))
	$(BIN)/train $(TRAIN) --data $(FASHION) --classes 5-9 --seed $(SECOND) -o $(lastword $(CHECKPOINTS))

# ---- the demo: collect once; match, apply, recalibrate and eval for every variant -----------------------------------
# A variant's folder is named after its settings: other settings are other files, and everything else is kept.

ALPHA ?= 0.7
BETA ?= 1
RIDGE := 0.001
IMAGES ?= 5000
RESET_IMAGES ?= 2000
DEMO := runs/demo/seeds$(SEEDS)_images$(IMAGES)_reset$(RESET_IMAGES)

.PHONY: demo select

# As the authors do: before they are merged, the networks' BatchNorm statistics are re-estimated on all tasks' images.
RESET := $(CHECKPOINTS:data/checkpoints/%=$(DEMO)/sources/%)

$(RESET): $(DEMO)/sources/%: data/checkpoints/% | build
	@mkdir -p $(@D)
	$(BIN)/recalibrate $< --all-classes --data $(FASHION) --images $(RESET_IMAGES) -o $@ > /dev/null
	@touch $@

$(DEMO)/stats.h5: $(RESET) | build
	@mkdir -p $(@D)
	$(BIN)/collect $^ --data $(FASHION) --images $(IMAGES) -o $@
	@touch $@

$(DEMO)/sources/%.json: $(CHECKPOINTS) | build
	@mkdir -p $(@D)
	$(BIN)/eval $^ --ensemble $^ --data $(FASHION) --split $* -o $@ > /dev/null
	@touch $@

$(DEMO)/sources/%_reset.json: $(RESET) | build
	$(BIN)/eval --ensemble $^ --label "ensemble of 2, BN reset" --data $(FASHION) --split $* -o $@ > /dev/null
	@touch $@

# $(call variant,FOLDER,NAME IN THE TABLE,MATCH FLAGS)
define variant
$(DEMO)/$(1)/plan.bin: $(DEMO)/stats.h5
	@mkdir -p $$(@D)
	$(BIN)/match $$< $(3) -o $$@ > $$(@D)/match.txt
	@touch $$@
$(DEMO)/$(1)/merged.safetensors: $(DEMO)/$(1)/plan.bin $(RESET)
	$(BIN)/apply $$^ -o $$@ > /dev/null
	@touch $$@
$(DEMO)/$(1)/network.safetensors: $(DEMO)/$(1)/merged.safetensors
	$(BIN)/recalibrate $$< --data $(FASHION) --images $(RESET_IMAGES) -o $$@ > /dev/null
	@touch $$@
$(DEMO)/$(1)/%.json: $(DEMO)/$(1)/network.safetensors
	$(BIN)/eval $$< --data $(FASHION) --split $$* --label "$(2)" -o $$@ > /dev/null
	@touch $$@

endef

# The table's rows: METHOD_EXTENT_UNMERGE.
EXTENTS := full 7of20 13of20
UNMERGES := pinv covariance
ZIP := zip_a$(ALPHA)_b$(BETA)
ROWS := $(foreach u,$(UNMERGES),identity_full_$(u) permute_full_$(u)) \
	$(foreach e,$(EXTENTS),$(foreach u,$(UNMERGES),$(ZIP)_$(e)_$(u) ward_$(e)_$(u))) ward_budget1_covariance

method_identity := --method identity
method_permute := --method permute
method_$(ZIP) := --method zip --alpha $(ALPHA) --beta $(BETA)
method_ward := --method ward
extent_full :=
STOPS := $(foreach k,2 4 6 7 8 10 12 13 14 16 18 19,$(k)of20)
$(foreach s,$(STOPS),$(eval extent_$(s) := --stop-at $(subst of,/,$(s))))
BUDGETS := 0.5 0.75 1 1.25 1.5 1.75 2
$(foreach b,$(BUDGETS),$(eval extent_budget$(b) := --budget $(b)))
unmerge_pinv := --unmerge pinv
unmerge_covariance := --unmerge covariance --ridge $(RIDGE)

# A row split at its underscores: last the unmerge rule, before it the extent, the rest is the method.
parts = $(subst _, ,$(1))
unmerge = $(lastword $(call parts,$(1)))
extent = $(lastword $(call parts,$(patsubst %_$(call unmerge,$(1)),%,$(1))))
method = $(patsubst %_$(call extent,$(1))_$(call unmerge,$(1)),%,$(1))
title = $(subst _, ,$(method)) $(if $(findstring of,$(extent)),to $(subst of,/,$(extent)),$(extent)) $(unmerge)
flags = $(method_$(method)) $(extent_$(extent)) $(unmerge_$(unmerge))

$(eval $(foreach row,$(ROWS),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))

# Which of the merged networks to take is decided on the validation split; the table is about the test split.
demo: $(DEMO)/$(ZIP).report.json ## Merge two networks in every way we have and compare them (a few minutes)
	@$(BIN)/eval $< --data $(FASHION)
	@$(BIN)/eval $(DEMO)/$(ZIP).validation.json --data $(FASHION) --best | tail -n 1

$(DEMO)/$(ZIP).report.json: $(DEMO)/sources/test.json $(DEMO)/sources/test_reset.json $(ROWS:%=$(DEMO)/%/test.json) $(DEMO)/$(ZIP).validation.json
	$(BIN)/eval $(filter-out %.validation.json,$^) \
		--note "moments: $(IMAGES) unlabelled training images; BatchNorm reset, before and after merging: $(RESET_IMAGES)" \
		--note "α = $(ALPHA) and β = $(BETA) were chosen on the validation split (every tenth training image): make select" \
		-o $@ > /dev/null
	@touch $@

$(DEMO)/$(ZIP).validation.json: $(DEMO)/sources/val.json $(ROWS:%=$(DEMO)/%/val.json)
	$(BIN)/eval $^ -o $@ > /dev/null
	@touch $@

# The grid on which α and β are chosen: full zip, the authors' unmerge rule, validation split.
ALPHAS := 0.01 0.1 0.3 0.5 0.7 1
BETAS := 0 0.15 0.5 1
GRID := $(filter-out $(ZIP)_full_pinv,$(foreach a,$(ALPHAS),$(foreach b,$(BETAS),zip_a$(a)_b$(b)_full_pinv)))
$(foreach a,$(ALPHAS),$(foreach b,$(BETAS),$(eval method_zip_a$(a)_b$(b) := --method zip --alpha $(a) --beta $(b))))
$(eval $(foreach row,$(GRID),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))

select: $(DEMO)/sources/val.json $(GRID:%=$(DEMO)/%/val.json) $(DEMO)/$(ZIP)_full_pinv/val.json ## Choose α and β on the validation split
	@$(BIN)/eval $^ --best

# Every other matching the field compares, full zip, beside the demo's.
COMPARED := average kmeans optimal weight mudsc cca
method_average := --method average
method_kmeans := --method kmeans
method_optimal := --method optimal
method_weight := --method weight --models $(RESET)
method_mudsc := --method mudsc --models $(RESET)
method_cca := --method cca
COMPARISON := $(foreach m,$(COMPARED),$(foreach u,$(UNMERGES),$(m)_full_$(u)))
$(eval $(foreach row,$(COMPARISON),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))

.PHONY: compare
compare: $(DEMO)/$(ZIP).report.json $(COMPARISON:%=$(DEMO)/%/test.json) ## The demo's table with every matching we have
	@$(BIN)/eval $^

# Accuracy against FLOPs: the widths chosen for a budget, beside one network's width up to every merge point.
CURVE := $(BUDGETS:%=ward_budget%_covariance) $(STOPS:%=ward_%_covariance)
$(eval $(foreach row,$(filter-out $(ROWS),$(CURVE)),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))

.PHONY: curve
curve: $(CURVE:%=$(DEMO)/%/test.json) ## Accuracy for budgets of FLOPs and for every stop point, and what --predict said before
	@$(BIN)/match $(DEMO)/stats.h5 --predict -o $(DEMO)/predicted.bin
	@$(BIN)/eval $^

# ---- checks ---------------------------------------------------------------------------------------------------------

.PHONY: test lint docs deny bench clean
test: build ## Run all tests
	cargo nextest run --release --locked --workspace
	cargo test --release --locked --workspace --doc

lint: .venv/ready ## Format, clippy and the crate walls
	cargo fmt --all --check
	scripts/check_walls.sh
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

docs: .venv/ready ## The API documentation, every broken link an error
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

deny: ## Licences, advisories and one-door rules (needs cargo-deny)
	cargo deny check

bench: build ## Benchmarks: ratios against named rivals, in one run
	cargo bench --locked --workspace --bench collect --bench matching --bench resnet50

clean: ## Remove builds, environments and runs
	rm -rf target runs .venv .venv-python
