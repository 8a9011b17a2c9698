//! Which colour and shape a line has: the same in every figure of a report, as far as there are enough.

use super::plot::{Line, MAX_LINES};
use std::collections::{BTreeMap, BTreeSet};

/// Kind of line → its look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looks(BTreeMap<String, usize>);

impl Looks {
    /// Every kind of line that is not there yet gets the next look.
    pub fn note<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) {
        for line in lines {
            let next = self.0.len();
            self.0.entry(line.kind.clone()).or_insert(next);
        }
    }

    /// Gives every line its look, or a free one where another line has it.
    pub fn give(&self, lines: &mut [Line]) {
        let mut taken = BTreeSet::new();
        let mut without = Vec::new();
        for (i, line) in lines.iter_mut().enumerate() {
            let look = self.0.get(&line.kind).copied().unwrap_or(0) % MAX_LINES;
            if taken.insert(look) {
                line.look = look;
            } else {
                without.push(i);
            }
        }
        let free = (0..MAX_LINES).filter(|look| !taken.contains(look));
        for (i, look) in without.into_iter().zip(free) {
            lines[i].look = look;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(kinds: &[&str]) -> Vec<Line> {
        kinds.iter().map(|kind| Line { kind: (*kind).to_owned(), ..Line::default() }).collect()
    }

    #[test]
    fn a_kind_keeps_its_look_and_no_two_lines_share_one() {
        let mut looks = Looks::default();
        looks.note(&lines(&["a", "b", "c"]));
        looks.note(&lines(&["c", "d"]));
        let mut drawn = lines(&["d", "b", "b"]);
        looks.give(&mut drawn);
        assert_eq!(drawn.iter().map(|line| line.look).collect::<Vec<_>>(), [3, 1, 0]);
    }
}
