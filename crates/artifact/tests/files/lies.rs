//! Files whose digests are true and whose contents are not: one case per way to lie.

use crate::fixture::{self, Folder, read};
use crate::forge::{self, Safetensors, Tensor};
use serde_json::{Value, json};
use zipit_artifact::{Error, StatsReader, model};

/// Reads `bytes` as a file of `kind`, which must be refused in words that hold `reason`.
fn refused(kind: &str, bytes: &[u8], reason: &str) {
    let folder = Folder::empty();
    let path = folder.write("liar", bytes);
    let error = read(kind, &path).expect_err(reason).to_string();
    assert!(error.starts_with(path.to_str().unwrap()), "`{error}` does not start with the file");
    assert!(error.contains(reason), "`{error}` does not say `{reason}`");
}

fn graph(file: &mut Safetensors, change: impl FnOnce(&mut Value)) {
    let mut graph: Value = serde_json::from_str(&file.metadata["zipit.graph"]).unwrap();
    change(&mut graph);
    file.metadata.insert("zipit.graph".into(), graph.to_string());
}

#[test]
fn forged_files_are_believed_when_they_do_not_lie() {
    let folder = Folder::empty();
    read("model", &folder.write("m", &forge::safetensors("model", |_| ()))).unwrap();
    read("checkpoint", &folder.write("c", &forge::safetensors("checkpoint", |_| ()))).unwrap();
    read("plan", &folder.write("p", &forge::plan(|_| ()))).unwrap();
    let path = forge::stats(&folder, &forge::stats_header(|_| ()), |file| forge::point(file, "points/relu"));
    read("stats", &path).unwrap();
}

type SafetensorsLie = fn(&mut Safetensors);

#[test]
fn models() {
    let lies: [(SafetensorsLie, &str); 24] = [
        (|f| drop(f.metadata.remove("zipit.graph")), "`zipit.graph` is missing in its metadata"),
        (|f| drop(f.metadata.remove("zipit.tasks")), "`zipit.tasks` is missing"),
        (|f| drop(f.metadata.remove("zipit.preprocess")), "`zipit.preprocess` is missing"),
        (|f| drop(f.metadata.remove("zipit.provenance")), "`zipit.provenance` is missing"),
        (|f| drop(f.metadata.insert("zipit.graph".into(), "{".into())), "its graph cannot be understood"),
        (|f| drop(f.metadata.insert("zipit.tasks".into(), "[[]]".into())), "its list of tasks cannot be understood"),
        (|f| drop(f.metadata.insert("zipit.tasks".into(), "[]".into())), "1 outputs but 0 tasks"),
        (|f| drop(f.metadata.insert("zipit.kind".into(), "checkpoint".into())), "is a zipit training checkpoint"),
        (
            |f| drop(f.metadata.insert("zipit.version".into(), "3".into())),
            "format version 3, this zipit reads version 2",
        ),
        (|f| drop(f.metadata.insert("zipit.version".into(), "two".into())), "its `zipit.version` is no number"),
        (|f| drop(f.metadata.remove("zipit.kind")), "a safetensors file that zipit did not write"),
        (|f| graph(f, |g| g["nodes"][2]["op"] = json!({"op": "softmax"})), "its graph cannot be understood"),
        (|f| graph(f, |g| g["colour"] = json!("red")), "unknown field `colour`"),
        (
            |f| graph(f, |g| g["nodes"][2]["inputs"][0] = json!("nowhere")),
            "reads `nowhere`, which no earlier node makes",
        ),
        (|f| graph(f, |g| g["outputs"] = json!([])), "no outputs"),
        (|f| graph(f, |g| g["input"]["shape"] = json!([3, 4, 4])), "expects 1 channels, is given 3"),
        (|f| drop(f.tensors.remove("fc.bias")), "missing: fc.bias [2]"),
        (|f| f.tensors.get_mut("conv.weight").unwrap().shape = vec![3, 9], "wrong shape: conv.weight is [3, 9]"),
        (
            |f| drop(f.tensors.insert("more".into(), Tensor { dtype: "F32", shape: vec![], bytes: vec![0; 4] })),
            "unexpected: more []",
        ),
        (|f| f.tensors.get_mut("fc.bias").unwrap().bytes[..4].fill(0xff), "not finite (NaN or infinity): fc.bias"),
        (
            |f| drop(f.tensors.insert("fc.bias".into(), Tensor { dtype: "I64", shape: vec![2], bytes: vec![0; 16] })),
            "`fc.bias` holds I64, expected floating-point numbers",
        ),
        (
            |f| drop(f.tensors.insert("fc.bias".into(), Tensor { dtype: "C64", shape: vec![2], bytes: vec![0; 16] })),
            "`fc.bias` holds C64, expected floating-point numbers",
        ),
        (
            |f| {
                drop(
                    f.tensors.insert("fc.bias".into(), Tensor { dtype: "F8_E4M3", shape: vec![2], bytes: vec![0; 2] }),
                );
            },
            "`fc.bias` holds F8_E4M3, expected floating-point numbers",
        ),
        (
            |f| drop(f.metadata.insert("zipit.preprocess".into(), r#"{"size":[4,4],"mean":[null],"std":[1]}"#.into())),
            "preprocessing",
        ),
    ];
    for (lie, reason) in lies {
        refused("model", &forge::safetensors("model", lie), reason);
    }
}

/// The safetensors format's own rules.
#[test]
fn safetensors_headers() {
    let entry = |name: &str, dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let mut lies: Vec<(Vec<u8>, &str)> = [
        (format!("{{{},{}}}", entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 2, 6)), 6, "invalid offset"),
        (format!("{{{},{}}}", entry("a", "F32", "[1]", 0, 4), entry("b", "F32", "[1]", 5, 9)), 9, "invalid offset"),
        (format!("{{{}}}", entry("a", "F32", "[1]", 4, 0)), 4, "invalid"),
        (format!("{{{}}}", entry("a", "F32", "[2]", 0, 8)), 4, "not fully covered"),
        (format!("{{{}}}", entry("a", "F32", "[1]", 0, 4)), 8, "not fully covered"),
        (format!("{{{}}}", entry("a", "F32", "[3]", 0, 4)), 4, "invalid shape"),
        (format!("{{{}}}", entry("a", "F33", "[1]", 0, 4)), 4, "unknown variant `F33`"),
        (format!("{{{}}}", entry("a", "F32", "[4294967296,4294967296,4]", 0, 4)), 4, "overflow"),
        (format!("{{{}}}", entry("a", "F32", "[-1]", 0, 4)), 4, "invalid value"),
        (format!("{{{}}}", entry("a", "F32", "[1]", 0, u64::MAX)), 4, "invalid"),
        ("{\"a\":7}".into(), 0, "invalid JSON in header"),
        ("{\"__metadata__\":{\"a\":7}}".into(), 0, "invalid JSON in header"),
        ("{".into(), 0, "invalid JSON in header"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), 0, "invalid JSON in header"),
    ]
    .into_iter()
    .map(|(header, n, reason)| (forge::with_header(&header, &vec![0; n]), reason))
    .collect();
    lies.push((
        vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, b'{'],
        "its header claims 9223372036854775807 bytes",
    ));
    lies.push((
        vec![0, 1, 0, 0, 0, 0, 0, 0, b'{', b'}'],
        "its header claims 256 bytes, but the file has 10: it is cut",
    ));
    lies.push((vec![3, 0, 0, 0, 0, 0, 0, 0, b'{', 0xff, b'}'], "invalid UTF-8 in header"));
    for (bytes, reason) in lies {
        refused("model", &bytes, reason);
        refused("checkpoint", &bytes, reason);
        let folder = Folder::empty();
        let path = folder.write("liar", &bytes);
        assert!(model::read_foreign_safetensors(&path).unwrap_err().to_string().contains(reason));
        assert!(model::read_header(&path).is_err(), "{reason}");
    }
}

#[test]
fn a_digest_that_is_not_the_contents() {
    let folder = Folder::empty();
    let changed = |change: SafetensorsLie| {
        let mut file = Safetensors::of(&std::fs::read(Folder::filled().path("model")).unwrap());
        change(&mut file);
        model::read(&folder.write("m", &file.bytes())).map(drop)
    };
    changed(|_| ()).unwrap();
    let lies: [SafetensorsLie; 4] = [
        |f| f.tensors.get_mut("fc.bias").unwrap().bytes[0] ^= 1,
        |f| f.tensors.get_mut("fc.weight").unwrap().shape.reverse(),
        |f| drop(f.metadata.insert("note".into(), "mine".into())),
        |f| drop(f.metadata.insert("zipit.digest".into(), "0".repeat(64))),
    ];
    for lie in lies {
        let error = changed(lie).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("its content is not what zipit wrote"), "{error}");
    }
}

/// PyTorch adds counters when somebody saves a model again.
#[test]
fn counters_of_batch_norm_are_no_lie() {
    let folder = Folder::empty();
    let counter = Tensor { dtype: "I64", shape: vec![], bytes: vec![0; 8] };
    let bytes = forge::safetensors("model", |f| drop(f.tensors.insert("bn.num_batches_tracked".into(), counter)));
    let path = folder.write("m", &bytes);
    assert_eq!(model::read(&path).unwrap().model, fixture::network(3));
    assert_eq!(model::read_header(&path).unwrap().shapes.len(), fixture::network(3).weights.len());
}

#[test]
fn models_of_version_1_are_read() {
    let folder = Folder::empty();
    let bytes = forge::safetensors("model", |f| drop(f.metadata.insert("zipit.version".into(), "1".into())));
    assert_eq!(model::read(&folder.write("m", &bytes)).unwrap().model, fixture::network(3));
}

#[test]
fn checkpoints() {
    let mut file = Safetensors::of(&std::fs::read(Folder::filled().path("model")).unwrap());
    file.metadata.insert("zipit.kind".into(), "checkpoint".into());
    file.metadata.insert("zipit.version".into(), "1".into());
    file.metadata.insert("zipit.state".into(), "{}".into());
    let changed = |change: SafetensorsLie| {
        let mut copy = Safetensors { metadata: file.metadata.clone(), tensors: file.tensors.clone() };
        change(&mut copy);
        copy.sealed()
    };
    let folder = Folder::empty();
    read("checkpoint", &folder.write("c", &changed(|_| ()))).unwrap();
    refused("checkpoint", &changed(|f| drop(f.metadata.remove("zipit.state"))), "`zipit.state` is missing");
    refused(
        "checkpoint",
        &changed(|f| drop(f.metadata.insert("zipit.state".into(), "{".into()))),
        "its state cannot be understood",
    );
    refused("checkpoint", &changed(|f| drop(f.metadata.insert("zipit.version".into(), "9".into()))), "version 9");
    refused(
        "checkpoint",
        &changed(|f| drop(f.tensors.insert("t".into(), Tensor { dtype: "BF16", shape: vec![1], bytes: vec![0; 2] }))),
        "`t` holds BF16, expected F32, F64 or I64",
    );
}

type PlanLie = fn(&mut forge::Plan);

/// Features of the point count what is given.
fn weigh(plan: &mut forge::Plan, weights: &[f32]) {
    plan.header["points"][0]["weights"] = json!(true);
    let weights: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
    plan.dense = [weights, std::mem::take(&mut plan.dense)].concat();
}

#[test]
fn plans() {
    let lies: [(PlanLie, &str); 34] = [
        (|p| p.version = 7, "a zipit plan of format version 7, this zipit reads version 6: use a newer zipit"),
        (|p| p.version = 3, "format version 3, this zipit reads version 6: make the file again"),
        (|p| weigh(p, &[1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0]), "point `relu`: feature 1 counts NaN"),
        (|p| weigh(p, &[1.0, -0.5, 1.0, 1.0, 1.0, 1.0]), "point `relu`: feature 1 counts -0.5"),
        (|p| weigh(p, &[0.0; 6]), "point `relu`: no member of group 0 counts"),
        (|p| weigh(p, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "the unmerge does not undo the merge"),
        (|p| p.header["points"][0]["weights"] = json!(true), "the unmerge of `relu` is not there"),
        (|p| p.header["points"][0]["weights"] = json!([1, 2]), "its header cannot be understood"),
        (|p| p.codec[0] = 2, "its codec is 2, expected 1"),
        (|p| p.lengths = Some([u64::MAX, 1, 0]), "its sections do not fill it"),
        (|p| p.lengths = Some([u64::MAX, 2, u64::MAX]), "its sections do not fill it"),
        (|p| p.header = json!(7), "its header cannot be understood"),
        (|p| p.header["points"][0]["n_groups"] = json!(-1), "its header cannot be understood"),
        (|p| p.header["settings"]["method"]["name"] = json!("magic"), "unknown variant `magic`"),
        (|p| p.header["settings"]["unmerge"]["ridge"] = json!(null), "its header cannot be understood"),
        (|p| drop(p.header.as_object_mut().unwrap().remove("graph")), "missing field `graph`"),
        (|p| p.header["graph"]["nodes"][2]["op"] = json!("warp"), "its header cannot be understood"),
        (|p| p.header["n_models"] = json!(3), "merges within 2 models are counted, expected 3"),
        (
            |p| p.header["points"][0]["summary"]["condition"] = json!(-1.0),
            "point `relu`: the condition number is Some(-1.0)",
        ),
        (|p| p.header["models"].as_array_mut().unwrap().truncate(1), "a plan for 2 models names 1"),
        (|p| p.header["points"] = json!([]), "0 points but 1 assignments"),
        (|p| p.header["points"][0]["name"] = json!("bn"), "`bn` is no merge point of the graph"),
        (|p| p.header["points"][0]["n_joint"] = json!(5), "assigns 6 of 5 features"),
        (|p| p.header["points"][0]["n_groups"] = json!(u64::MAX), "the unmerge of `relu` is not there"),
        (|p| p.header["points"][0]["dense_unmerge"] = json!(false), "72 bytes of maps belong to no point"),
        (|p| p.header["points"][0]["dense_merge"] = json!(true), "the unmerge of `relu` is not there"),
        (|p| p.header["points"][0]["resting"] = json!([6]), "feature 6 of 6 has no weight"),
        (|p| p.header["points"][0]["resting"] = json!([3, 2]), "without weight are not in ascending order"),
        (|p| p.header["points"][0]["resting"] = json!([0, 1, 2, 3, 4, 5]), "no member of group 0 has weight"),
        (|p| p.header["points"][0]["summary"]["dead"] = json!(7), "7 dead and 0 constant features of 6"),
        (|p| p.assignments.truncate(4), "its assignments cannot be understood"),
        (|p| p.assignments.push(0), "its assignments cannot be understood"),
        (|p| p.assignments[2] = 2, "point `relu`: feature 0 opens group 2 before group 0 has a member"),
        (|p| p.dense[..4].copy_from_slice(&f32::NAN.to_le_bytes()), "the unmerge holds NaN or infinity"),
    ];
    for (lie, reason) in lies {
        refused("plan", &forge::plan(lie), reason);
    }
    // One vector said to hold 2^64 - 1 numbers, and 2^62 vectors: no memory is asked for.
    for bomb in [vec![1, 253, 255, 255, 255, 255, 255, 255, 255, 255], vec![253, 0, 0, 0, 0, 0, 0, 0, 64]] {
        refused("plan", &forge::plan(|p| p.assignments = bomb), "its assignments cannot be understood");
    }
}

type HeaderLie = fn(&mut Value);

#[test]
fn stats_headers() {
    let lies: [(HeaderLie, &str); 21] = [
        (|h| drop(h.as_object_mut().unwrap().remove("graph")), "missing field `graph`"),
        (|h| h["graph"]["nodes"][2]["op"] = json!({"op": "softmax"}), "its header cannot be understood"),
        (|h| h["graph"]["nodes"][2]["inputs"] = json!([]), "needs one input, has 0"),
        (|h| h["models"] = json!([]), "0 models with 2 lists of tasks"),
        (|h| h["tasks"] = json!([]), "2 models with 0 lists of tasks"),
        (|h| h["others"] = json!([h["graph"], h["graph"]]), "2 models with the graphs of 3"),
        (
            |h| {
                h["others"] = json!([h["graph"]]);
                h["others"][0]["nodes"][0]["op"]["bias"] = json!(true);
            },
            "model 2: `conv` is Conv2d",
        ),
        (|h| h["points"] = json!([]), "no merge points"),
        (|h| h["points"] = json!([["conv", 3]]), "`conv` is no merge point of its graph"),
        (|h| h["points"] = json!([["relu", 4]]), "`relu` has 4 features, its graph says 3"),
        (|h| h["points"] = json!([["relu", 3], ["relu", 3]]), "`relu` is there twice"),
        (|h| h["preprocess"]["size"] = json!([5, 4]), "the preprocessing gives [1, 5, 4]"),
        (|h| h["shard"] = json!([0, 2]), "shard 0/2; shards count from 1"),
        (|h| h["shard"] = json!([3, 2]), "shard 3/2"),
        (|h| h["n_images"] = json!(0), "nothing was measured"),
        (|h| h["n_images"] = json!(6), "`relu`: 80 samples, but 6 images of 16 positions were measured"),
        (|h| h["n_images"] = json!(u64::MAX), "samples"),
        (|h| h["batches_done"] = json!(0), "nothing was measured"),
        (|h| h["batches_done"] = json!(3), "3 of 2 batches are done"),
        (|h| h["when"] = json!("today"), "unknown field `when`"),
        (|h| *h = json!([]), "its header cannot be understood"),
    ];
    for (lie, reason) in lies {
        let folder = Folder::empty();
        let path = forge::stats(&folder, &forge::stats_header(lie), |file| forge::point(file, "points/relu"));
        let error = read("stats", &path).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

type PointLie = fn(&hdf5::Group);

fn replace<T: hdf5::H5Type>(group: &hdf5::Group, name: &str, values: &[T]) {
    group.unlink(name).unwrap();
    group.new_dataset_builder().with_data(values).create(name).unwrap();
}

#[test]
fn stats_points() {
    let lies: [(PointLie, &str); 13] = [
        (|g| g.unlink("count").unwrap(), "`points/relu/count` is missing"),
        (|g| g.unlink("sum").unwrap(), "`points/relu/sum` is missing"),
        (|g| g.unlink("outer").unwrap(), "`points/relu/outer` is missing"),
        (|g| replace(g, "count", &[0_u64]), "no samples were measured"),
        (|g| replace(g, "count", &[81_u64]), "81 samples, but 5 images of 16 positions"),
        (|g| replace(g, "count", &[80_i64]), "`points/relu/count` holds int64, expected uint64"),
        (|g| replace(g, "sum", &[1.0_f64; 5]), "`points/relu/sum` has shape [5], expected [6]"),
        (|g| replace(g, "sum", &[1.0_f32; 6]), "`points/relu/sum` holds float32, expected float64"),
        (|g| replace(g, "outer", &[1.0_f64; 36]), "`points/relu/outer` has shape [36], expected [21]"),
        (|g| replace(g, "outer", &[f64::NAN; 21]), "the moments hold NaN or infinity"),
        (|g| replace(g, "sum", &[f64::INFINITY; 6]), "the moments hold NaN or infinity"),
        (
            |g| {
                g.unlink("outer").unwrap();
                g.create_group("outer").unwrap();
            },
            "`points/relu/outer` cannot be opened",
        ),
        (
            |g| {
                g.unlink("sum").unwrap();
                g.new_dataset::<f64>().shape(6).create("sum").unwrap();
            },
            "`points/relu/sum` claims 48 bytes [6], but only 0 are stored",
        ),
    ];
    for (lie, reason) in lies {
        let folder = Folder::empty();
        let path = forge::stats(&folder, &forge::stats_header(|_| ()), |file| {
            forge::point(file, "points/relu");
            lie(&file.group("points/relu").unwrap());
        });
        let error = read("stats", &path).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

#[test]
fn stats_ranges() {
    let lies: [(PointLie, &str); 5] = [
        (|g| g.unlink("low").unwrap(), "`values/flatten/low` is missing"),
        (|g| replace(g, "high", &[1.0_f32; 5]), "`values/flatten/high`"),
        (|g| replace(g, "high", &[1.0_f64; 6]), "`values/flatten/high`"),
        (|g| replace(g, "high", &[-1.0_f32; 6]), "`flatten`: feature 0 is said to lie between 0 and -1"),
        (|g| replace(g, "high", &[f32::NAN; 6]), "`flatten`: feature 0 is said to lie between 0 and NaN"),
    ];
    for (lie, reason) in lies {
        let folder = Folder::empty();
        let path = forge::stats(&folder, &forge::stats_header(|_| ()), |file| {
            forge::point(file, "points/relu");
            forge::extents(file);
            lie(&file.group("values/flatten").unwrap());
        });
        let reader = StatsReader::open(&path).unwrap();
        let moments = reader.moments("relu").unwrap();
        let error = reader.constants("relu", &moments).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

#[test]
fn stats_bombs_versions_and_absent_points() {
    let folder = Folder::empty();
    // A petabyte of moments that nobody stored.
    let header = forge::stats_header(|h| {
        let d = 10_000_000;
        h["graph"]["nodes"][0]["op"]["out_channels"] = json!(d);
        h["graph"]["nodes"][1]["op"]["num_features"] = json!(d);
        h["graph"]["nodes"][5]["op"]["in_features"] = json!(d);
        h["points"] = json!([["relu", d]]);
    });
    let path = forge::stats(&folder, &header, |file| {
        let group = file.create_group("points/relu").unwrap();
        group.new_dataset_builder().with_data(&[80_u64]).create("count").unwrap();
        group.new_dataset::<f64>().shape(20_000_000).create("sum").unwrap();
        group.new_dataset::<f64>().shape(20_000_000 * 20_000_001 / 2).create("outer").unwrap();
    });
    let error = StatsReader::open(&path).unwrap().moments("relu").unwrap_err().to_string();
    assert!(error.contains("claims 160000000 bytes [20000000], but only 0 are stored"), "{error}");

    let path = forge::stats(&folder, "", |_| ());
    assert!(StatsReader::open(&path).is_err());

    let path = forge::stats(&folder, &forge::stats_header(|_| ()), |_| ());
    let reader = StatsReader::open(&path).unwrap();
    assert!(reader.moments("relu").unwrap_err().to_string().contains("`points/relu/count` is missing"));
    assert!(reader.moments("bn").unwrap_err().to_string().contains("it has no merge point `bn`"));

    forge::seal(&path, 6);
    let error = StatsReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("zipit stats of format version 6, this zipit reads version 5"), "{error}");
}

#[test]
fn reports() {
    let whole = String::from_utf8(std::fs::read(Folder::filled().path("report")).unwrap()).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(whole.contains(from));
        whole.replacen(from, to, 1).into_bytes()
    };
    refused("report", &changed(r#""zipit.version": 3"#, r#""zipit.version": 4"#), "of format version 4");
    refused("report", &changed(r#""zipit.version": 3,"#, ""), "`zipit.version` is missing");
    refused("report", &changed(r#""zipit.kind": "report""#, r#""zipit.kind": "plan""#), "a JSON file of another kind");
    refused("report", &changed(r#""zipit.kind": "report","#, ""), "a JSON file of another kind");
    refused("report", &changed(r#""joint""#, "joint"), "it is no JSON");
    refused("report", &changed("0.3333333333333333", "\"a third\""), "its content cannot be understood");
    refused("report", &changed(r#""report": "#, r#""rapport": "#), "missing field `report`");
    refused("report", &changed(r#""tool": "zipit test 0.1.0","#, ""), "missing field `tool`");
    refused("report", b"{\"zipit.kind\": \"report\"", "it is no JSON");
    refused("report", b"[1, 2]", "a file of unknown kind");
    refused("report", format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes(), "it is no JSON");
}

type DatasetLie = fn(&hdf5::File);

fn put<T: hdf5::H5Type, const N: usize>(file: &hdf5::File, name: &str, shape: [usize; N], values: Vec<T>)
where
    ndarray::Dim<[usize; N]>: ndarray::Dimension,
    [usize; N]: ndarray::IntoDimension<Dim = ndarray::Dim<[usize; N]>>,
{
    file.unlink(name).unwrap();
    let array = ndarray::Array::from_shape_vec(shape, values).unwrap();
    file.new_dataset_builder().with_data(array.view()).create(name).unwrap();
}

#[test]
fn data_sets() {
    let lies: [(DatasetLie, &str); 16] = [
        (|f| f.unlink("classes").unwrap(), "`classes` is missing"),
        (|f| put(f, "classes", [2], vec![1.0_f32, 2.0]), "`classes` holds float32, expected strings"),
        (
            |f| put(f, "classes", [1], vec![hdf5::types::FixedAscii::<3>::from_ascii("cat").unwrap()]),
            "there are 1 classes",
        ),
        (
            |f| put(f, "classes", [3], vec![hdf5::types::FixedAscii::<3>::from_ascii("cat").unwrap(); 3]),
            "class `cat` is there twice",
        ),
        (|f| put(f, "classes", [3], vec![hdf5::types::FixedAscii::<3>::new(); 3]), "class 0 has no usable name"),
        (|f| f.unlink("train/labels").unwrap(), "`train/labels` is missing"),
        (|f| put(f, "train/labels", [3], vec![0_u8; 3]), "`train` has 4 images but 3 labels"),
        (|f| put(f, "train/labels", [4], vec![0_i32, 1, -1, 2]), "image 2 has label -1, there are 3 classes"),
        (|f| put(f, "train/labels", [4], vec![0_u64, 1, u64::MAX, 2]), "image 2 has label"),
        (|f| put(f, "train/labels", [4], vec![0.0_f64; 4]), "`train/labels` holds float64, expected integers"),
        (|f| put(f, "train/labels", [4, 1], vec![0_u8; 4]), "expected one label per image"),
        (|f| put(f, "train/images", [4, 3, 2, 5], vec![0_f32; 120]), "holds float32, expected uint8 pixels 0 to 255"),
        (|f| put(f, "train/images", [4, 30], vec![0_u8; 120]), "`train/images` is [4, 30], expected [N, C, H, W]"),
        (|f| put(f, "train/images", [4, 5, 2, 3], vec![0_u8; 120]), "looks like [N, H, W, C]; expected [N, C, H, W]"),
        (|f| put(f, "train/images", [4, 3, 5, 2], vec![0_u8; 120]), "those of another split"),
        (|f| put(f, "train/images", [0, 3, 2, 5], Vec::<u8>::new()), "`train/images` is empty: [0, 3, 2, 5]"),
    ];
    for (lie, reason) in lies {
        let folder = Folder::filled();
        let path = folder.path("dataset");
        let file = hdf5::File::open_rw(&path).unwrap();
        lie(&file);
        file.close().unwrap();
        let error = read("dataset", &path).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

#[test]
fn data_sets_that_are_not_asked_right() {
    let folder = Folder::filled();
    let data = zipit_artifact::DatasetFile::open(&folder.path("dataset")).unwrap();
    let says = |result: zipit_artifact::Result<()>, reason: &str| {
        let error = result.expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    };
    says(data.labels("val").map(drop), "it has no split `val`, only train, test");
    says(data.n("dev").map(drop), "it has no split `dev`");
    says(data.images("train", &[0, 4]).map(drop), "`train` has 4 images, none is number 4");
}
