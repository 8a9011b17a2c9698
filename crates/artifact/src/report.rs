//! Reports: JSON for people and programs, with the header every file has.

use crate::header::REPORT_VERSION;
use crate::{Error, InputRef, Kind, Provenance, Result, atomic, json};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// No report is larger; what is larger is no report.
const LIMIT: u64 = 1 << 28;

/// A report and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportFile<T> {
    /// The file it was read from.
    pub path: PathBuf,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// What was found.
    pub content: T,
    /// Who made it and from what.
    pub provenance: Provenance,
}

impl<T> ReportFile<T> {
    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        InputRef::new(&self.path, Kind::Report, &self.blake3, Some(self.provenance.clone()))
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<C> {
    #[serde(rename = "zipit.kind")]
    kind: String,
    #[serde(rename = "zipit.version")]
    version: u32,
    provenance: Provenance,
    report: C,
}

/// Kind and version; whatever else there is.
#[derive(Deserialize)]
struct Stamp {
    #[serde(rename = "zipit.kind")]
    kind: Option<String>,
    #[serde(rename = "zipit.version")]
    version: Option<u32>,
}

/// Writes a report. The same content gives the same bytes.
///
/// # Errors
/// Content that JSON does not give back (NaN, keys that are no strings), or a file that cannot be written.
pub fn write<T>(path: &Path, content: &T, provenance: &Provenance) -> Result<()>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    json::encode("report", content).map_err(|reason| Error::unwritable(path, &reason))?;
    let envelope = Envelope {
        kind: Kind::Report.code().to_owned(),
        version: REPORT_VERSION,
        provenance: provenance.compact(),
        report: content,
    };
    let mut text = serde_json::to_vec_pretty(&envelope).map_err(|e| Error::unwritable(path, &e))?;
    text.push(b'\n');
    atomic::write(path, |file| file.write_all(&text))
}

/// Reads a report whose content is a `T`.
///
/// # Errors
/// A file that cannot be read, is another kind or version, or whose content is no `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<ReportFile<T>> {
    let wrong = |found| Error::Kind { path: path.to_owned(), found, expected: Kind::Report };
    let found = crate::sniff(path)?;
    if !matches!(found, Kind::Report | Kind::Json) || fs::metadata(path).map_err(Error::read(path))?.len() > LIMIT {
        return Err(wrong(found));
    }
    let bytes = fs::read(path).map_err(Error::read(path))?;
    let stamp: Stamp =
        serde_json::from_slice(&bytes).map_err(|e| Error::damaged(path, found, format!("it is no JSON: {e}")))?;
    if stamp.kind.as_deref() != Some(Kind::Report.code()) {
        return Err(wrong(Kind::Json));
    }
    match stamp.version {
        Some(REPORT_VERSION) => {}
        Some(found) => {
            return Err(Error::Version { path: path.to_owned(), kind: Kind::Report, found, reads: REPORT_VERSION });
        }
        None => return Err(Error::contents(path, Kind::Report, "`zipit.version` is missing")),
    }
    let envelope: Envelope<T> = serde_json::from_slice(&bytes)
        .map_err(|e| Error::contents(path, Kind::Report, &format!("its content cannot be understood: {e}")))?;
    Ok(ReportFile {
        path: path.to_owned(),
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        content: envelope.report,
        provenance: envelope.provenance,
    })
}

/// Who made a report, whatever it says.
pub(crate) fn read_provenance(path: &Path) -> Result<Provenance> {
    Ok(read::<IgnoredAny>(path)?.provenance)
}

/// Whether `bytes`, a whole file, are a report.
pub(crate) fn is_report(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Stamp>(bytes).is_ok_and(|stamp| stamp.kind.as_deref() == Some(Kind::Report.code()))
}
