//! Stats that hold Fisher information and gradients at layers: round trips, and every way such a file can lie.

use crate::fixture::{self, Folder, read};
use crate::forge;
use ndarray::Array2;
use zipit::refit::Gram;
use zipit::{Collected, Fisher, Moments};
use zipit_artifact::header::STATS_VERSION;
use zipit_artifact::stats::Predicted;
use zipit_artifact::{StatsHeader, StatsReader, stats};

fn header() -> StatsHeader {
    StatsHeader { predicted: Some(Predicted::Expected), fisher: true, gradients: true, ..fixture::stats_header(3) }
}

fn sums() -> Collected {
    let header = header();
    let number = |i: usize| (i % 7) as f64 / 4.0;
    let fisher = |t: usize| {
        let sums = header.fisher_tensors().into_iter().map(|(name, n)| (name, (t..t + n).map(number).collect()));
        Fisher { count: header.n_images, sums: sums.collect() }
    };
    let gradients = |(name, o): (String, usize)| {
        let own = |t: usize| {
            let mut moments = Moments::zeros(o);
            let outer = Array2::from_shape_fn((o, o), |(i, j)| if i == j { (i + t) as f32 } else { 0.0 });
            moments.add_batch(header.n_images * 2, &vec![0.0; o], outer.view());
            moments
        };
        (name, Gram::Own(vec![own(1), own(2)]))
    };
    Collected {
        fisher: vec![fisher(0), fisher(3)],
        gradients: header.gradient_layers().into_iter().map(gradients).collect(),
        ..fixture::sums(3, &fixture::moments(3), &[].into())
    }
}

/// A layer and a tensor of the fixture's graph, as they stand in the file.
fn names() -> (String, String) {
    (header().gradient_layers()[0].0.clone(), header().fisher_tensors()[0].0.clone())
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
    assert_eq!(reader.gradients(&names().0).unwrap(), sums().gradients[&names().0]);
    assert!(reader.gradients("bn").unwrap_err().to_string().contains("gradients at `bn` were not measured"));
    assert!(std::fs::read(folder.path("s")).unwrap() == std::fs::read(folder.path("again")).unwrap());
    // The convolution and the classifier; what both networks learn.
    assert_eq!(header().gradient_layers().len(), 2);
    assert!(header().fisher_tensors().iter().all(|(name, _)| !name.contains("running")));
    // Without both there are none.
    stats::write(&folder.path("plain"), &fixture::stats_header(3), &fixture::sums(3, &fixture::moments(3), &[].into()))
        .unwrap();
    let plain = StatsReader::open(&folder.path("plain")).unwrap();
    assert!(plain.fisher().unwrap().is_empty() && plain.gradients(&names().0).is_err());
}

type Lie = fn(&hdf5::File, &str, &str);

fn replace<T: hdf5::H5Type>(file: &hdf5::File, name: &str, values: &[T]) {
    file.unlink(name).unwrap();
    file.new_dataset_builder().with_data(values).create(name).unwrap();
}

#[test]
fn numbers() {
    let lies: [(Lie, &str); 8] = [
        (|_, _, _| (), ""),
        (|file, _, tensor| file.unlink(&format!("fisher/1/{tensor}")).unwrap(), "is missing"),
        (|file, _, tensor| replace(file, &format!("fisher/0/{tensor}"), &[1.0_f64; 2]), "has shape [2], expected"),
        (
            |file, _, tensor| {
                let n = file.dataset(&format!("fisher/0/{tensor}")).unwrap().size();
                replace(file, &format!("fisher/0/{tensor}"), &vec![-1.0_f64; n]);
            },
            "squared gradients hold a number that is negative",
        ),
        (
            |file, _, tensor| {
                let n = file.dataset(&format!("fisher/1/{tensor}")).unwrap().size();
                replace(file, &format!("fisher/1/{tensor}"), &vec![f64::NAN; n]);
            },
            "model 1: ",
        ),
        (|file, layer, _| file.unlink(&format!("gradients/{layer}/1")).unwrap(), "/1/count` is missing"),
        (|file, layer, _| replace(file, &format!("gradients/{layer}/0/count"), &[7_u64]), "are no whole images of 5"),
        (|file, layer, _| replace(file, &format!("gradients/{layer}/0/sum"), &[0.0_f64; 9]), "has shape [9], expected"),
    ];
    let (layer, tensor) = names();
    for (lie, reason) in lies {
        let folder = Folder::empty();
        let path = folder.path("s");
        stats::write(&path, &header(), &sums()).unwrap();
        let file = hdf5::File::open_rw(&path).unwrap();
        lie(&file, &layer, &tensor);
        file.close().unwrap();
        forge::seal(&path, STATS_VERSION);
        match read("stats", &path) {
            Ok(()) => assert!(reason.is_empty(), "not refused: {reason}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!reason.is_empty() && error.contains(reason), "`{error}` does not say `{reason}`");
            }
        }
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
    refused(&StatsHeader { predicted: None, ..header() }, &sums(), "gradients are measured, or they are not");
    refused(&StatsHeader { fisher: false, ..header() }, &sums(), "Fisher information of 2 models, expected 0");
    refused(&StatsHeader { gradients: false, ..header() }, &sums(), "2 layers' gradients for 0");
    refused(&header(), &Collected { fisher: vec![], ..sums() }, "of 0 models, expected 2");
    refused(&header(), &Collected { gradients: [].into(), ..sums() }, "the gradients at");
    let mut fewer = sums();
    fewer.fisher[1].count -= 1;
    refused(&header(), &fewer, "of model 1 is of other tensors or images");
    let mut together = sums();
    together.gradients.insert(names().0, Gram::Joint(Moments::zeros(6)));
    refused(&header(), &together, "gradients of models together");
}
