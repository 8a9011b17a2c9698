//! Masked networks: what is written is read as networks, and every way such a file can lie.

use crate::fixture::{self, Folder, RESCALERS, SHARED, has, unified, write_masked};
use crate::forge::{self, Safetensors, Tensor};
use serde_json::{Value, json};
use zipit_artifact::masked::{self, MaskedWriter, Part};
use zipit_artifact::{Kind, MaskedReader, Precision, Result, model, sniff};

#[test]
fn networks_come_back_one_by_one() {
    let folder = Folder::empty();
    let path = folder.path("masked");
    let written = fixture::network(3).weights;
    for (precision, bound) in [(Precision::F32, 0.0), (Precision::Bf16, 0.01), (Precision::F16, 0.002)] {
        write_masked(&path, precision).unwrap();
        assert_eq!(sniff(&path).unwrap(), Kind::Masked);
        let file = MaskedReader::open(&path).unwrap();
        assert_eq!((file.outline(), file.precision()), (&fixture::masked_outline(), precision));
        assert_eq!((file.rescalers(), file.provenance()), (&RESCALERS[..], &fixture::provenance()));
        for (t, rescaler) in RESCALERS.into_iter().enumerate() {
            let model = file.model(t).unwrap();
            assert_eq!(model.tasks, fixture::masked_outline().networks[t].tasks);
            assert!(model.joint.is_none() && model.weights.len() == written.len());
            for (name, tensor) in &model.weights {
                for (i, (found, x)) in tensor.iter().zip(&written[name]).enumerate() {
                    let wanted = match SHARED.contains(&name.as_str()) {
                        true if has(t, i) => (f64::from(*x) + rescaler * f64::from(unified(i))) as f32,
                        true => *x,
                        false => x + t as f32,
                    };
                    assert!((found - wanted).abs() <= bound * wanted.abs().max(1.0), "{name} {i}: {found} {wanted}");
                }
            }
            let n = |name: &&str| (0..written[*name].len()).filter(|&i| has(t, i)).count() as u64;
            assert_eq!(file.n_left(t).unwrap(), SHARED.iter().map(n).sum::<u64>());
        }
        assert_eq!(file.outline().network_of("second"), Ok(1));
        let error = file.outline().network_of("third").unwrap_err();
        assert_eq!(error, "there is no task `third`; its tasks are: first, second");
    }
}

#[test]
fn what_is_stored_is_counted() {
    let cost = fixture::masked_outline().cost().unwrap();
    let one = fixture::graph(3).cost().unwrap();
    // 27 + 3 + 3 of the base and of the vector; a head of 8 for each, and two rescalers.
    assert_eq!((cost.macs, cost.params, cost.buffers), (one.macs, 2 * 33 + 2 * 8 + 2, 2 * one.buffers));
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let folder = Folder::empty();
    let path = folder.path("masked");
    let outline = fixture::masked_outline();
    let write = |outline: &masked::Outline, number: f32| -> Result<()> {
        let n = |name: &str| fixture::network(3).weights[name].len();
        let fill = |part: &Part, writer: &mut MaskedWriter<'_, '_>| match part {
            Part::Base(name) | Part::Unified(name) | Part::Own(_, name) => writer.numbers(&vec![number; n(name)]),
            Part::Mask(_, name) => writer.bits(&vec![0; n(name).div_ceil(8)]),
            Part::Rescalers => writer.rescalers(&RESCALERS),
        };
        masked::write_streamed(&path, outline, Precision::F16, &fixture::provenance(), fill)
    };
    let mut none = outline.clone();
    none.networks.clear();
    let mut alike = outline.clone();
    alike.networks[1].tasks[0].name = "first".into();
    let mut other = outline.clone();
    other.shared.insert("conv.bias".into(), vec![3]);
    for (outline, number, reason) in [
        (&none, 1.0, "there is no network"),
        (&alike, 1.0, "two networks have a task `first`"),
        (&other, 1.0, "network 0 has no `conv.bias` [3], which all share"),
        (&outline, f32::NAN, "`bn.bias/base` would hold NaN"),
        (&outline, 1e30, "`bn.bias/base` holds 1e30; store it as bf16 or f32"),
    ] {
        let error = write(outline, number).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains(reason), "{error}");
        assert!(folder.names().is_empty(), "{reason}: {:?}", folder.names());
    }
    write(&outline, 1.0).unwrap();
}

#[test]
fn no_reader_of_networks_takes_it() {
    let folder = Folder::filled();
    let error = model::read(&folder.path("masked")).unwrap_err().to_string();
    let reason =
        "is a zipit file of masked networks (combine --rule emr), expected a zipit model: which of its networks is";
    assert!(error.contains(reason) && error.contains("`eval`, `predict` and `inspect` do"), "{error}");
    let error = MaskedReader::open(&folder.path("model")).unwrap_err().to_string();
    assert!(error.contains("is a zipit model, expected a zipit file of masked networks"), "{error}");
    assert!(error.ends_with("give the file that `combine --rule emr` made"), "{error}");
}

type Lie = fn(&mut Safetensors);

fn networks(file: &mut Safetensors, change: impl FnOnce(&mut Value)) {
    let mut networks: Value = serde_json::from_str(&file.metadata["zipit.networks"]).unwrap();
    change(&mut networks);
    file.metadata.insert("zipit.networks".into(), networks.to_string());
}

fn rescaler(file: &mut Safetensors, t: usize, value: f64) {
    file.tensors.get_mut("rescalers").unwrap().bytes[8 * t..8 * t + 8].copy_from_slice(&value.to_le_bytes());
}

fn tensor(file: &mut Safetensors, name: &str, dtype: &'static str, shape: &[usize], n_bytes: usize) {
    file.tensors.insert(name.into(), Tensor { dtype, shape: shape.to_vec(), bytes: vec![0; n_bytes] });
}

#[test]
fn lies() {
    let lies: [(Lie, &str); 27] = [
        (|f| drop(f.metadata.remove("zipit.networks")), "`zipit.networks` is missing in its metadata"),
        (|f| drop(f.metadata.remove("zipit.preprocess")), "`zipit.preprocess` is missing"),
        (|f| drop(f.metadata.remove("zipit.provenance")), "`zipit.provenance` is missing"),
        (
            |f| drop(f.metadata.insert("zipit.version".into(), "2".into())),
            "masked networks (combine --rule emr) of format version 2, this zipit reads version 1: use a newer zipit",
        ),
        (|f| drop(f.metadata.insert("zipit.version".into(), "one".into())), "its `zipit.version` is no number"),
        (|f| drop(f.metadata.insert("zipit.kind".into(), "model".into())), "is a zipit model, expected"),
        (
            |f| drop(f.metadata.insert("zipit.networks".into(), "{}".into())),
            "its list of networks cannot be understood",
        ),
        (|f| networks(f, |n| n[0]["colour"] = json!("red")), "unknown field `colour`"),
        (|f| networks(f, |n| n[1]["tasks"] = json!([])), "1 outputs but 0 tasks"),
        (|f| networks(f, |n| n[1]["tasks"][0]["name"] = json!("first")), "two networks have a task `first`"),
        (|f| networks(f, |n| n[1]["graph"]["nodes"][2]["inputs"][0] = json!("nowhere")), "reads `nowhere`"),
        // A network more, and one less, than there are masks, tensors and rescalers of.
        (|f| networks(f, |n| drop(n.as_array_mut().unwrap().pop())), "unexpected: bn.bias/mask/1 [1]"),
        (
            |f| {
                networks(f, |n| {
                    let mut third = n[0].clone();
                    third["tasks"][0]["name"] = json!("third");
                    n.as_array_mut().unwrap().push(third);
                });
            },
            "missing: bn.bias/mask/2 [1]",
        ),
        (|f| drop(f.metadata.insert("zipit.networks".into(), "[]".into())), "there is no network"),
        (|f| drop(f.tensors.remove("conv.weight/mask/1")), "missing: conv.weight/mask/1 [4]"),
        (
            |f| {
                let mask = f.tensors.get_mut("conv.weight/mask/0").unwrap();
                mask.bytes.pop();
                mask.shape = vec![3];
            },
            "wrong shape: conv.weight/mask/0 is [3], the networks need [4]",
        ),
        (|f| tensor(f, "conv.weight/mask/0", "U8", &[5], 5), "wrong shape: conv.weight/mask/0 is [5]"),
        (|f| tensor(f, "conv.weight/mask/0", "F32", &[4], 16), "`conv.weight/mask/0` holds F32, expected U8"),
        (
            |f| f.tensors.get_mut("conv.weight/mask/1").unwrap().bytes[3] |= 0b1000,
            "`conv.weight/mask/1` has bits beyond its 27 entries",
        ),
        (|f| drop(f.tensors.remove("rescalers")), "missing: rescalers [2]"),
        (|f| tensor(f, "rescalers", "F64", &[3], 24), "wrong shape: rescalers is [3], the networks need [2]"),
        (|f| rescaler(f, 1, f64::NAN), "not finite (NaN or infinity): rescalers"),
        (|f| rescaler(f, 0, -1.0), "a rescaler is -1"),
        (
            |f| f.tensors.get_mut("conv.weight/unified").unwrap().shape = vec![3, 9],
            "wrong shape: conv.weight/unified is [3, 9], the networks need [3, 1, 3, 3]",
        ),
        (|f| drop(f.tensors.remove("conv.weight/unified")), "missing: conv.weight/own/0"),
        (|f| tensor(f, "bn.bias/base", "I64", &[3], 24), "`bn.bias/base` holds I64, expected F32"),
        (|f| f.tensors.get_mut("fc.bias/own/1").unwrap().bytes[..4].fill(0xff), "(NaN or infinity): fc.bias/own/1"),
    ];
    let folder = Folder::empty();
    for (lie, reason) in lies {
        let path = folder.write("liar", &forge::safetensors("masked", lie));
        let error = MaskedReader::open(&path).expect_err(reason).to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "`{error}` does not start with the file");
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
    MaskedReader::open(&folder.write("m", &forge::safetensors("masked", |_| ()))).unwrap();
    // Finite numbers of which the sum is not.
    let huge = f32::MAX.to_le_bytes();
    let bytes = forge::safetensors("masked", |f| {
        for part in ["base", "unified"] {
            f.tensors.get_mut(&format!("bn.bias/{part}")).unwrap().bytes[4..8].copy_from_slice(&huge);
        }
    });
    let file = MaskedReader::open(&folder.write("huge", &bytes)).unwrap();
    assert!(file.model(0).unwrap_err().to_string().contains("network 0: not finite (NaN or infinity): bn.bias"));
}
