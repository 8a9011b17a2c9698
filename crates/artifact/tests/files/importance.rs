//! Stats that hold the importance of features: round trips, and every way such a file can lie.

use crate::fixture::{self, Folder, read};
use crate::forge;
use serde_json::{Value, json};
use zipit::{Collected, Importance};
use zipit_artifact::{StatsHeader, StatsReader, stats};

fn header() -> StatsHeader {
    StatsHeader { probes: Some(7), ..fixture::stats_header(3) }
}

fn sums() -> Collected {
    Collected { importance: fixture::importance(3), ..fixture::sums(3, &fixture::moments(3), &[].into()) }
}

#[test]
fn what_is_written_is_read_back() {
    let folder = Folder::empty();
    for name in ["s", "again"] {
        stats::write(&folder.path(name), &header(), &sums()).unwrap();
    }
    let reader = StatsReader::open(&folder.path("s")).unwrap();
    assert_eq!(reader.header(), &header());
    assert_eq!(reader.collected().unwrap(), sums());
    assert_eq!(reader.importance("relu").unwrap().as_ref(), sums().importance.get("relu"));
    assert!(reader.importance("bn").unwrap_err().to_string().contains("no merge point `bn`"));
    assert!(std::fs::read(folder.path("s")).unwrap() == std::fs::read(folder.path("again")).unwrap());
}

#[test]
fn a_file_of_version_3_has_none() {
    let folder = Folder::empty();
    let path = forge::stats(&folder, &forge::stats_header(|_| ()), |file| {
        forge::point(file, "points/relu");
        forge::extents(file);
    });
    forge::seal(&path, 3);
    let reader = StatsReader::open(&path).unwrap();
    assert_eq!(reader.importance("relu").unwrap(), None);
    assert_eq!(reader.collected().unwrap(), fixture::sums(3, &fixture::moments(3), &[].into()));
}

type GroupLie = fn(&hdf5::Group);
type HeaderLie = fn(&mut Value);

fn replace<T: hdf5::H5Type>(group: &hdf5::Group, name: &str, values: &[T]) {
    group.unlink(name).unwrap();
    group.new_dataset_builder().with_data(values).create(name).unwrap();
}

#[test]
fn numbers() {
    // Gradients by 3 features at 16 positions of 5 images.
    let lies: [(GroupLie, &str); 9] = [
        (|_| (), ""),
        (|g| g.unlink("1").unwrap(), "`points/relu/importance/0/1/count` is missing"),
        (|g| g.unlink("0/sum").unwrap(), "`points/relu/importance/0/0/sum` is missing"),
        (|g| replace(g, "0/count", &[0_u64]), "`relu`: no samples were measured"),
        (|g| replace(g, "1/count", &[79_u64]), "`relu`: importance at `relu` is of other features or samples"),
        (|g| replace(g, "0/sum", &[1.0_f64; 6]), "/sum` has shape [6], expected [3]"),
        (|g| replace(g, "0/outer", &[1.0_f32; 6]), "/outer` holds float32, expected float64"),
        (|g| replace(g, "0/outer", &[f64::NAN; 6]), "the moments hold NaN or infinity"),
        (|g| replace(g, "0/outer", &[-1.0_f64; 6]), "the sum of squares of feature 0 is negative"),
    ];
    for (lie, reason) in lies {
        let folder = Folder::empty();
        let header = forge::stats_header(|h| h["probes"] = json!(1));
        let path = forge::stats(&folder, &header, |file| {
            forge::point(file, "points/relu");
            forge::extents(file);
            forge::importance(file);
            lie(&file.group("points/relu/importance/0").unwrap());
        });
        match read("stats", &path) {
            Ok(()) => assert!(reason.is_empty(), "not refused: {reason}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!reason.is_empty() && error.contains(reason), "`{error}` does not say `{reason}`");
            }
        }
    }
}

#[test]
fn headers() {
    let lies: [(HeaderLie, &str); 3] = [
        (|h| h["probes"] = json!(-1), "its header cannot be understood"),
        (|h| h["probes"] = json!("seed"), "its header cannot be understood"),
        (|h| h["probes"] = json!(3), "`points/relu/importance/0/0/count` is missing"),
    ];
    for (lie, reason) in lies {
        let folder = Folder::empty();
        let path = forge::stats(&folder, &forge::stats_header(lie), |file| {
            forge::point(file, "points/relu");
            forge::extents(file);
        });
        let error = read("stats", &path).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
}

/// What would be such a file is not written.
#[test]
fn lies_are_not_written() {
    let folder = Folder::empty();
    let refused = |header: &StatsHeader, sums: &Collected, reason: &str| {
        let error = stats::write(&folder.path("s"), header, sums).expect_err(reason).to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    };
    let changed = |change: fn(&mut Importance)| {
        let mut sums = sums();
        sums.importance.values_mut().for_each(change);
        sums
    };
    refused(&fixture::stats_header(3), &sums(), "1 points' importance for 0");
    refused(&header(), &Collected { importance: [].into(), ..sums() }, "the importance of `relu` is missing");
    refused(&header(), &changed(|of| of.places.clear()), "importance at 0 places, expected 1");
    let joint = |of: &mut Importance| of.places[0].joint = Some(fixture::moments(3)["relu"].clone());
    refused(&header(), &changed(joint), "of other features or samples");
    let fewer = |of: &mut Importance| drop(of.places[0].gradients.pop());
    refused(&header(), &changed(fewer), "of other features or samples");
    refused(&header(), &changed(|of| of.places[0].gradients[0].sum[0] = f64::NAN), "NaN or infinity");
}
