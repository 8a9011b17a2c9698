//! The bytes that images become, for comparisons with Pillow (`tests/golden/compare.py`): reads lines of a data set's path,
//! a tabulator and a preprocessing (JSON, as in a model file) and writes `x · 255` of every training image as bytes
//! `[B, C, H, W]`, or the reason why not after `error: `, each after a line with its length.
#![allow(clippy::print_stdout)]

use std::io::{Write, stdin, stdout};
use zipit::Preprocess;
use zipit_data::{Dataset, Split};

fn pixels(path: &str, preprocess: &str) -> Result<Vec<u8>, String> {
    let preprocess: Preprocess = serde_json::from_str(preprocess).map_err(|e| e.to_string())?;
    let data = Dataset::open(path, Split::Test).map_err(|e| e.to_string())?;
    let images = data.load(&(0..data.len()).collect::<Vec<_>>(), &preprocess).map_err(|e| e.to_string())?;
    Ok(images.iter().map(|v| (v * 255.0).round() as u8).collect())
}

fn main() -> std::io::Result<()> {
    for line in stdin().lines() {
        let line = line?;
        let (path, preprocess) = line.split_once('\t').unwrap_or((&line, ""));
        let bytes = pixels(path, preprocess).unwrap_or_else(|reason| format!("error: {reason}").into_bytes());
        println!("{}", bytes.len());
        stdout().write_all(&bytes)?;
    }
    Ok(())
}
