//! Stats that hold what the layers read: round trips, and every way such a file can lie.

use crate::fixture::{self, Folder, N_IMAGES, read};
use crate::forge;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use zipit::Moments;
use zipit::refit::Gram;
use zipit_artifact::stats::GramKind;
use zipit_artifact::{StatsHeader, StatsReader, stats};

const KINDS: [GramKind; 2] = [GramKind::Joint, GramKind::Own];

#[test]
fn what_is_written_is_read_back() {
    for kind in KINDS {
        for channels in [1, 3, 5] {
            let folder = Folder::empty();
            let (path, header) = (folder.path("s"), fixture::stats_header_with_layers(channels, kind));
            let grams = fixture::grams(channels, kind);
            stats::write(&path, &header, &fixture::sums(channels, &fixture::moments(channels), &grams)).unwrap();
            let reader = StatsReader::open(&path).unwrap();
            assert_eq!(reader.header(), &header);
            for (name, gram) in &grams {
                assert_eq!(&reader.gram(name).unwrap(), gram);
            }
            assert_eq!(reader.moments("relu").unwrap(), fixture::moments(channels)["relu"]);
            let message = reader.gram("bn").unwrap_err().to_string();
            assert!(message.contains("what `bn` reads was not measured"), "{message}");
            // The same bytes again.
            stats::write(&folder.path("again"), &header, &fixture::sums(channels, &fixture::moments(channels), &grams))
                .unwrap();
            assert!(std::fs::read(&path).unwrap() == std::fs::read(folder.path("again")).unwrap());
        }
    }
    // A file without layers has none.
    let reader = StatsReader::open(&Folder::filled().path("stats")).unwrap();
    assert!(reader.gram("conv").unwrap_err().to_string().contains("what `conv` reads was not measured"));
}

#[test]
fn layers_may_have_names_that_hdf5_would_take_for_paths() {
    let folder = Folder::empty();
    for kind in KINDS {
        for name in ["a/b", "..", ".", "100%", "layer1.0.conv1", "\u{e9}\u{1f980}"] {
            let mut header = fixture::stats_header_with_layers(2, kind);
            header.graph.nodes[0].module = Some(name.to_owned());
            header.layers[0].0 = name.to_owned();
            let mut grams = fixture::grams(2, kind);
            let conv = grams.remove("conv").unwrap();
            grams.insert(name.to_owned(), conv.clone());
            stats::write(&folder.path("s"), &header, &fixture::sums(2, &fixture::moments(2), &grams)).unwrap();
            assert_eq!(StatsReader::open(&folder.path("s")).unwrap().gram(name).unwrap(), conv);
        }
    }
}

#[test]
fn forged_layers_are_believed_when_they_do_not_lie() {
    for kind in KINDS {
        let folder = Folder::empty();
        let path = forge::stats(&folder, &forge::layers_header(kind, |_| ()), |file| {
            forge::point(file, "points/relu");
            forge::layers(file, kind);
        });
        read("stats", &path).unwrap();
        assert_eq!(StatsReader::open(&path).unwrap().gram("fc").unwrap(), fixture::grams(3, kind)["fc"]);
    }
}

type HeaderLie = fn(&mut Value);

#[test]
fn headers() {
    let lies: [(HeaderLie, &str); 14] = [
        (|h| drop(h.as_object_mut().unwrap().remove("layers")), "missing field `layers`"),
        (|h| h["gram"] = Value::Null, "layers are measured, or they are not"),
        (|h| h["layers"] = json!([]), "layers are measured, or they are not"),
        (|h| h["gram"] = json!("both"), "unknown variant `both`"),
        (|h| h["layers"][0] = json!(["nowhere", 9]), "`nowhere` is no layer of its graph"),
        (|h| h["layers"][0] = json!(["relu", 9]), "`relu` is no layer of its graph"),
        (|h| h["layers"][0] = json!(["conv", 8]), "`conv` reads 8 numbers, its graph says 9"),
        (|h| h["layers"][0] = json!(["conv", 0]), "`conv` reads 0 numbers, its graph says 9"),
        (|h| h["layers"][1] = json!(["fc", u64::MAX]), "`fc` reads 18446744073709551615 numbers, its graph says 3"),
        (|h| h["layers"][1] = json!(["conv", 9]), "layer `conv` is there twice"),
        (|h| h["layers"][0] = json!(["conv", -9]), "its header cannot be understood"),
        (|h| h["layers"] = json!([["bn", 3]]), "`layers/bn/"),
        (|h| h["graph"]["nodes"][0]["op"]["window"]["kernel"] = json!([1, 1]), "`conv` reads 9 numbers"),
        (|h| h["graph"]["nodes"][5]["module"] = json!("head"), "`fc` is no layer of its graph"),
    ];
    for kind in KINDS {
        for (lie, reason) in lies {
            let folder = Folder::empty();
            let path = forge::stats(&folder, &forge::layers_header(kind, lie), |file| {
                forge::point(file, "points/relu");
                forge::layers(file, kind);
            });
            let error = read("stats", &path).expect_err(reason).to_string();
            assert!(error.contains(reason), "`{error}` does not say `{reason}`");
        }
    }
}

/// Says the wrong kind, in the header, of what is there.
#[test]
fn moments_of_the_other_kind() {
    for (said, there) in [(GramKind::Joint, GramKind::Own), (GramKind::Own, GramKind::Joint)] {
        let folder = Folder::empty();
        let path = forge::stats(&folder, &forge::layers_header(said, |_| ()), |file| {
            forge::point(file, "points/relu");
            forge::layers(file, there);
        });
        let reason =
            if said == GramKind::Joint { "`layers/conv/count` is missing" } else { "`layers/conv/0/count` is missing" };
        let error = read("stats", &path).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

type GroupLie = fn(&hdf5::Group);

fn replace<T: hdf5::H5Type>(group: &hdf5::Group, name: &str, values: &[T]) {
    group.unlink(name).unwrap();
    group.new_dataset_builder().with_data(values).create(name).unwrap();
}

#[test]
fn numbers() {
    // The classifier's, of five images: 3 numbers in each of two models.
    let lies: [(GroupLie, &str); 14] = [
        (|g| g.unlink("count").unwrap(), "/count` is missing"),
        (|g| g.unlink("sum").unwrap(), "/sum` is missing"),
        (|g| g.unlink("outer").unwrap(), "/outer` is missing"),
        (|g| replace(g, "count", &[0_u64]), "`fc`: no samples were measured"),
        (|g| replace(g, "count", &[6_u64]), "`fc`: 6 samples are no whole images of 5"),
        (|g| replace(g, "count", &[5_i64]), "/count` holds int64, expected uint64"),
        (|g| replace(g, "count", &[5_u64, 5]), "/count` has shape [2], expected [1]"),
        (|g| replace(g, "sum", &[1.0_f64; 4]), "/sum` has shape [4], expected"),
        (|g| replace(g, "sum", &[1.0_f32; 6]), "/sum` holds float32, expected float64"),
        (|g| replace(g, "outer", &[1.0_f64; 36]), "/outer` has shape [36], expected"),
        (|g| replace(g, "outer", &[1.0_f32; 6]), "/outer` holds float32, expected float64"),
        (|g| fill(g, "outer", f64::NAN), "the moments hold NaN or infinity"),
        (|g| fill(g, "sum", f64::INFINITY), "the moments hold NaN or infinity"),
        (|g| fill(g, "outer", -1.0), "the sum of squares of feature 0 is negative"),
    ];
    for (kind, at) in [(GramKind::Joint, "layers/fc"), (GramKind::Own, "layers/fc/1")] {
        for (lie, reason) in lies {
            let folder = Folder::empty();
            let path = forge::stats(&folder, &forge::layers_header(kind, |_| ()), |file| {
                forge::point(file, "points/relu");
                forge::layers(file, kind);
                lie(&file.group(at).unwrap());
            });
            let error = read("stats", &path).expect_err(reason).to_string();
            assert!(error.contains(reason), "{kind:?}: `{error}` does not say `{reason}`");
        }
    }
}

fn fill(group: &hdf5::Group, name: &str, value: f64) {
    let n = group.dataset(name).unwrap().size();
    replace(group, name, &vec![value; n]);
}

/// What would be such a file is not written.
#[test]
fn lies_are_not_written() {
    let folder = Folder::empty();
    let path = folder.path("s");
    let refused = |change: &dyn Fn(&mut StatsHeader, &mut BTreeMap<String, Gram>), reason: &str| {
        for kind in KINDS {
            let (mut header, mut grams) = (fixture::stats_header_with_layers(3, kind), fixture::grams(3, kind));
            change(&mut header, &mut grams);
            let error = stats::write(&path, &header, &fixture::sums(3, &fixture::moments(3), &grams))
                .expect_err(reason)
                .to_string();
            assert!(error.contains(reason), "`{error}` does not say `{reason}`");
            assert!(folder.names().is_empty(), "{:?}", folder.names());
        }
    };
    let other = |kind| fixture::grams(3, if kind == GramKind::Joint { GramKind::Own } else { GramKind::Joint });
    refused(&|_, grams| drop(grams.remove("fc")), "the moments of layer `fc` are missing");
    refused(&|header, _| drop(header.layers.pop()), "2 layers' moments for 1");
    refused(&|header, _| header.gram = None, "layers are measured, or they are not");
    refused(&|header, _| header.layers[0].1 = 10, "`conv` reads 10 numbers, its graph says 9");
    refused(&|header, grams| *grams = other(header.gram.unwrap()), "of another kind than the header says");
    refused(
        &|_, grams| {
            let smaller = match &grams["fc"] {
                Gram::Joint(_) => Gram::Joint(Moments::zeros(5)),
                Gram::Own(_) => Gram::Own(vec![Moments::zeros(3)]),
            };
            grams.insert("fc".to_owned(), smaller);
        },
        "numbers, expected [",
    );
    let each = |gram: &mut Gram, change: fn(&mut Moments)| match gram {
        Gram::Joint(moments) => change(moments),
        Gram::Own(each) => change(&mut each[1]),
    };
    refused(&|_, grams| each(grams.get_mut("fc").unwrap(), |m| m.count = N_IMAGES + 1), "no whole images");
    refused(&|_, grams| each(grams.get_mut("conv").unwrap(), |m| m.sum[0] = f64::NAN), "NaN or infinity");
}
