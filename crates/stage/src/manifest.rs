//! `manifest.json` beside the outputs: what a run cost and where. The only place for clocks and hosts, so that the
//! artifacts themselves stay byte-identical.

use crate::Stage;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use zipit_artifact::{atomic, header::hash_file};

/// The file's name in every folder that holds outputs.
pub const MANIFEST: &str = "manifest.json";

/// How one output came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// BLAKE3 of the output.
    pub blake3: String,
    /// The command line.
    pub command: Vec<String>,
    /// Seconds from start to the output's rename.
    pub seconds: f64,
    /// Peak resident memory of the process in bytes, where the system tells.
    pub peak_memory: Option<u64>,
    /// Worker threads.
    pub threads: usize,
    /// The machine.
    pub host: Option<String>,
}

impl Stage {
    /// Notes in the manifest beside `output` that this stage has just written it. A manifest that cannot be written
    /// is told, but does not fail the work it is about.
    pub fn record(&self, output: &Path) {
        if let Err(e) = self.try_record(output) {
            tracing::warn!("{e:#}");
        }
    }

    fn try_record(&self, output: &Path) -> anyhow::Result<()> {
        let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let path = folder.join(MANIFEST);
        // Stages of one folder may end at the same time: the folder itself is the lock.
        let lock = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", folder.display()))?;
        let mut manifest = read(&path).unwrap_or_default();
        let entry = Entry {
            blake3: hash_file(output)?,
            command: std::env::args().collect(),
            seconds: self.seconds(),
            peak_memory: peak_memory(),
            threads: self.n_threads(),
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|h| h.trim().to_owned()),
        };
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        manifest.insert(name, entry);
        let text = serde_json::to_string_pretty(&manifest)? + "\n";
        atomic::write(&path, |file| file.write_all(text.as_bytes()))?;
        Ok(())
    }
}

/// Re-hashes every file that a manifest in `folder` or below names; says how many there are.
///
/// # Errors
/// The first file that is missing or is not what was written.
pub fn verify(folder: &Path) -> anyhow::Result<usize> {
    let checked = verify_below(folder)?;
    ensure!(checked > 0, "no {MANIFEST} in {} or below it", folder.display());
    Ok(checked)
}

fn verify_below(folder: &Path) -> anyhow::Result<usize> {
    let mut checked = 0;
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            checked += verify_below(&path)?;
        } else if path.file_name().is_some_and(|name| name == MANIFEST) {
            for (name, entry) in read(&path)? {
                let file = folder.join(&name);
                ensure!(file.exists(), "{} names {name}, which is not there", path.display());
                let found = hash_file(&file)?;
                ensure!(
                    found == entry.blake3,
                    "{} has changed since it was written: BLAKE3 {found}, the manifest says {}",
                    file.display(),
                    entry.blake3
                );
                checked += 1;
            }
        }
    }
    Ok(checked)
}

/// What a manifest tells of each output, by its name.
///
/// # Errors
/// A file that cannot be read or is no manifest.
pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a manifest", path.display()))
}

/// `VmHWM` of this process: its peak resident memory in bytes, where the system tells.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
