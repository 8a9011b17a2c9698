//! Class names, and the ways to ask for some of them.

use crate::{Error, Result, digest::Digest, error, listing::few};
use std::path::Path;

/// Class names from a text file: one a line, empty lines at the end ignored.
pub(crate) fn read_names(path: &Path, digest: &mut Digest) -> Result<Vec<String>> {
    let contents = error::read(path)?;
    digest.file(&path.file_name().unwrap_or_default().to_string_lossy(), &contents);
    let text = String::from_utf8(contents)
        .map_err(|_| Error::content(path, "is not UTF-8 text; it must name one class a line"))?;
    let names: Vec<String> =
        text.trim_start_matches('\u{feff}').trim_end().lines().map(|line| line.trim().to_owned()).collect();
    if names.iter().all(String::is_empty) {
        return Err(Error::content(path, "names no classes; it must name one a line"));
    }
    if let Some(i) = names.iter().position(String::is_empty) {
        return Err(Error::content(path, format!("line {} is empty; it must name class {i}", i + 1)));
    }
    if let Some(i) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
        return Err(Error::content(path, format!("line {} names class `{}` a second time", i + 1, names[i])));
    }
    Ok(names)
}

/// Class names, numbers or ranges → class numbers, in the order asked for. See [`crate::Dataset::class_indices`].
pub(crate) fn indices(classes: &[String], spec: &[String]) -> Result<Vec<u32>> {
    if spec.is_empty() {
        return Ok((0..classes.len() as u32).collect());
    }
    let mut chosen: Vec<u32> = Vec::new();
    let mut add = |class: usize, word: &str| {
        if chosen.contains(&(class as u32)) {
            return Err(Error::Request(format!("class `{}` is asked for twice (again by `{word}`)", classes[class])));
        }
        chosen.push(class as u32);
        Ok(())
    };
    for entry in spec {
        let entry = entry.trim();
        // A name may contain a comma or a dash, so whole names go first.
        if let Some(class) = position(classes, entry) {
            add(class, entry)?;
            continue;
        }
        for word in entry.split(',').map(str::trim) {
            if let Some(class) = position(classes, word) {
                add(class, word)?;
            } else {
                for class in range(word, classes)? {
                    add(class, word)?;
                }
            }
        }
    }
    Ok(chosen)
}

fn position(classes: &[String], name: &str) -> Option<usize> {
    classes.iter().position(|c| c == name)
}

/// `5` or `0-4`.
fn range(word: &str, classes: &[String]) -> Result<std::ops::RangeInclusive<usize>> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let (first, last) = match word.split_once('-') {
        None => (number(word), number(word)),
        Some((first, last)) => (number(first), number(last)),
    };
    match (first, last) {
        (Some(first), Some(last)) if last < first => {
            Err(Error::Request(format!("class range `{word}` runs backwards: write {last}-{first}")))
        }
        (Some(first), Some(last)) if last < classes.len() => Ok(first..=last),
        _ => Err(unknown(word, classes)),
    }
}

fn unknown(word: &str, classes: &[String]) -> Error {
    let numbered =
        |(i, name): (usize, &String)| if *name == i.to_string() { name.clone() } else { format!("{i} {name}") };
    let named: Vec<String> = classes.iter().enumerate().map(numbered).collect();
    let what = if word.is_empty() { "a class name is empty".to_owned() } else { format!("no class `{word}`") };
    Error::Request(format!("{what}; there are: {}", few(&named)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::indices;

    fn ask(spec: &[&str]) -> Result<Vec<u32>, String> {
        let classes = ["T-shirt/top", "Trouser", "7", "red, green", "0-1", "Bag", "Ankle boot", "x"].map(String::from);
        let spec: Vec<String> = spec.iter().map(|&s| s.to_owned()).collect();
        indices(&classes, &spec).map_err(|e| e.to_string())
    }

    #[test]
    fn names_numbers_ranges_and_lists() {
        assert_eq!(ask(&["T-shirt/top", "Bag"]).unwrap(), [0, 5]);
        assert_eq!(ask(&["2-4"]).unwrap(), [2, 3, 4]);
        assert_eq!(ask(&["5,3", " 1 "]).unwrap(), [5, 3, 1], "in the order asked for");
        assert_eq!(ask(&["Bag, 6", "0 - 1"]).unwrap(), [5, 6, 0, 1]);
        assert_eq!(ask(&["4-4"]).unwrap(), [4]);
        assert_eq!(ask(&[]).unwrap(), (0..8).collect::<Vec<u32>>());
    }

    #[test]
    fn a_class_of_exactly_that_name_goes_first() {
        assert_eq!(ask(&["7"]).unwrap(), [2]);
        assert_eq!(ask(&["0-1"]).unwrap(), [4]);
        assert_eq!(ask(&["red, green"]).unwrap(), [3]);
    }

    #[test]
    fn unknown_classes_get_the_list() {
        for unknown in ["8", "trouser", "5-8", "-1", "1-", "99999999999999999999", "Bag-x", "1-2-3"] {
            let message = ask(&[unknown]).unwrap_err();
            assert!(
                message.starts_with(&format!("no class `{unknown}`; there are: 0 T-shirt/top, 1 Trouser")),
                "{message}"
            );
        }
        assert!(ask(&[""]).unwrap_err().starts_with("a class name is empty"));
        assert!(ask(&["1,,2"]).unwrap_err().starts_with("a class name is empty"));
        assert_eq!(ask(&["4-2"]).unwrap_err(), "class range `4-2` runs backwards: write 2-4");
    }

    #[test]
    fn a_class_asked_for_twice_is_refused() {
        for twice in [["1", "1"], ["Bag", "5"], ["1-5", "3"], ["0-1", "4"]] {
            let message = ask(&twice).unwrap_err();
            assert!(message.contains("asked for twice"), "{message}");
        }
    }
}
