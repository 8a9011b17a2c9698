//! Writing: wholly or not at all.

use crate::fixture::{self, Folder};
use std::io::{self, Write};
use std::path::Path;
use zipit_artifact::{Error, atomic, dataset, model, plan, report, stats};

fn refusal(path: &Path) -> String {
    let error = atomic::write(path, |file| file.write_all(b"new")).unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    error.to_string()
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = Folder::empty();
    let path = folder.write("kept", b"old");
    let error = atomic::write(&path, |file| {
        file.write_all(&vec![0; 1 << 21])?;
        Err(io::Error::other("the sky fell"))
    })
    .unwrap_err();
    assert!(error.to_string().ends_with("kept: the sky fell"), "{error}");
    assert_eq!((std::fs::read(&path).unwrap(), folder.names()), (b"old".to_vec(), vec!["kept".to_owned()]));
    atomic::write(&path, |file| file.write_all(b"new")).unwrap();
    assert_eq!((std::fs::read(&path).unwrap(), folder.names()), (b"new".to_vec(), vec!["kept".to_owned()]));
}

#[test]
fn a_full_disk_is_called_one() {
    let folder = Folder::empty();
    let error = atomic::write(&folder.path("file"), |_| {
        std::fs::OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")
    })
    .unwrap_err();
    assert!(error.to_string().ends_with("the disk is full; free some space, or write elsewhere"), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn places_that_cannot_take_a_file() {
    let folder = Folder::empty();
    let here = folder.path("");
    assert!(refusal(&folder.path("no/file")).ends_with("no; make it first"));
    assert!(refusal(&here).ends_with("it is a folder; give a file name"));
    folder.write("file", b"");
    assert!(refusal(&folder.path("file/below")).contains("is not a folder"));
    assert!(refusal(Path::new("/dev/null")).ends_with("it is not an ordinary file, so it cannot be replaced whole"));
    assert!(refusal(Path::new("/proc/file")).contains("cannot write /proc/file: "));
    let locked = folder.write("locked", b"old");
    let mut permissions = std::fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&locked, permissions).unwrap();
    assert!(refusal(&locked).contains("it is write-protected"));
    assert_eq!(std::fs::read(&locked).unwrap(), b"old");
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let folder = Folder::empty();
    folder.write("target", b"old");
    std::os::unix::fs::symlink(folder.path("target"), folder.path("link")).unwrap();
    atomic::write(&folder.path("link"), |file| file.write_all(b"new")).unwrap();
    assert!(folder.path("link").is_symlink());
    assert_eq!(std::fs::read(folder.path("target")).unwrap(), b"new");
    std::os::unix::fs::symlink(folder.path("gone"), folder.path("dangling")).unwrap();
    assert!(refusal(&folder.path("dangling")).contains("a link to nowhere"));
}

/// Files that others are to read must not come out as 0600.
#[cfg(unix)]
#[test]
fn permissions_are_what_the_umask_leaves() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::filled();
    let mode = |name: &str| std::fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777;
    folder.write("plain", b"");
    for kind in fixture::KINDS {
        assert_eq!(mode(kind), mode("plain"), "{kind}");
    }
}

#[test]
fn the_longest_name_a_file_system_takes() {
    let folder = Folder::empty();
    let name = "n".repeat(255);
    atomic::write(&folder.path(&name), |file| file.write_all(b"new")).unwrap();
    assert_eq!(folder.names(), [name]);
}

/// What a killed process leaves behind is hidden and in nobody's way.
#[test]
fn left_over_temporary_files_do_no_harm() {
    let folder = Folder::filled();
    folder.write(".model.Ab3dEf.tmp", b"half a mod");
    model::write(&folder.path("model"), &fixture::network(3), &fixture::provenance()).unwrap();
    fixture::read("model", &folder.path("model")).unwrap();
}

fn split<'a>(images: &'a ndarray::Array4<u8>, labels: &'a [u32]) -> [dataset::SplitData<'a>; 1] {
    [("train", images.view(), labels)]
}

/// Content that could not be read back is refused before anything is written.
#[test]
fn unusable_content_is_not_written() {
    let folder = Folder::empty();
    let path = folder.path("file");
    let p = fixture::provenance();
    let refused = |result: zipit_artifact::Result<()>, reason: &str| {
        let error = result.expect_err(reason).to_string();
        assert!(error.contains("file is not written: ") && error.contains(reason), "{error}");
        assert!(folder.names().is_empty(), "{reason}");
    };

    let mut bad = fixture::network(3);
    bad.weights.get_mut("fc.bias").unwrap()[0] = f32::NAN;
    refused(model::write(&path, &bad, &p), "fc.bias");
    let mut bad = fixture::network(3);
    bad.preprocess.mean[0] = f32::INFINITY;
    refused(model::write(&path, &bad, &p), "preprocessing");

    let mut bad = fixture::moments(3);
    bad.get_mut("relu").unwrap().sum[0] = f64::NAN;
    refused(stats::write(&path, &fixture::stats_header(3), &fixture::sums(3, &bad, &[].into())), "NaN");
    refused(
        stats::write(&path, &fixture::stats_header(3), &fixture::sums(3, &[].into(), &[].into())),
        "`relu` are missing",
    );
    let mut more = fixture::moments(3);
    more.insert("other".into(), more["relu"].clone());
    refused(
        stats::write(&path, &fixture::stats_header(3), &fixture::sums(3, &more, &[].into())),
        "2 moments for 1 merge points",
    );
    refused(
        stats::write(&path, &fixture::stats_header(2), &fixture::sums(2, &fixture::moments(3), &[].into())),
        "6 features, expected 4",
    );

    let good = fixture::merge_plan(3, fixture::COVARIANCE);
    refused(plan::write(&path, &good, &fixture::graph(4), &fixture::inputs(), &p), "`relu` assigns 6 features");
    refused(plan::write(&path, &good, &fixture::graph(3), &fixture::inputs()[1..], &p), "for 2 models names 1");
    let mut bad = good.clone();
    bad.points[0].summary.reconstruction_error = f64::NAN;
    refused(plan::write(&path, &bad, &fixture::graph(3), &fixture::inputs(), &p), "reconstruction error");

    let no_text = std::collections::BTreeMap::from([((1, 2), 3)]);
    refused(report::write(&path, &no_text, &p), "key must be a string");
    refused(report::write(&path, &[f64::NAN], &p), "NaN");

    let mut bad = fixture::resume_state();
    bad.state = "{".into();
    refused(zipit_artifact::checkpoint::write(&path, &bad), "state");

    let images = fixture::images(2);
    refused(dataset::write(&path, &fixture::classes(), &split(&images, &[0])), "2 images but 1 labels");
    refused(dataset::write(&path, &fixture::classes(), &split(&images, &[0, 3])), "label 3, there are 3 classes");
    refused(dataset::write(&path, &["a".into(), "a".into()], &split(&images, &[0, 0])), "`a` is there twice");
    refused(dataset::write(&path, &["a".repeat(300)], &split(&images, &[0, 0])), "longer than 256 bytes");
    refused(dataset::write(&path, &fixture::classes(), &[("dev", images.view(), &[0, 0])]), "split `dev`");
}
