//! The class names, one per logit.

use crate::Args;
use anyhow::Context;

/// Class names: `a,b,c`, ranges of indices `0-4`, or the lines of a file.
///
/// # Errors
/// A file that cannot be read.
pub fn classes(args: &Args) -> anyhow::Result<Vec<String>> {
    if let Some(file) = &args.classes_file {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        // Editors on Windows begin a file with a byte-order mark.
        return Ok(text
            .trim_start_matches('\u{feff}')
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect());
    }
    Ok(args.classes.iter().flat_map(|item| range(item).unwrap_or_else(|| vec![item.clone()])).collect())
}

/// `5-9` → 5, 6, 7, 8, 9.
fn range(item: &str) -> Option<Vec<String>> {
    let (first, last) = item.split_once('-')?;
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last - first < 100_000).then(|| (first..=last).map(|i| i.to_string()).collect())
}
