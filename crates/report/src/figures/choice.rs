//! What was tried for α and β, as a map.

use super::palette::{on, sequential};
use super::paper::{INK, SMALL, Side, TEXT, WIDTH, bold, coloured, draw, ink, write};
use super::pen::{fill, frame};
use super::{Figure, Place};
use crate::error::Result;
use crate::numbers::{of_them, percent};
use crate::results::{CandidateResult, ChoiceResult};

const LEFT: i32 = 70;
const TOP: i32 = 12;
const HEIGHT: i32 = 38;

/// `None` unless every candidate has an α and a β.
pub fn figure(choice: &ChoiceResult, case: &str, index: usize) -> Result<Option<Figure>> {
    let is_known = |c: &&CandidateResult| {
        c.task_avg.is_finite() && c.alpha.is_some_and(f64::is_finite) && c.beta.is_some_and(f64::is_finite)
    };
    if choice.candidates.len() < 2 || !choice.candidates.iter().all(|c| is_known(&c)) {
        return Ok(None);
    }
    let (alphas, betas) = (distinct(choice, |c| c.alpha), distinct(choice, |c| c.beta));
    let shares = || choice.candidates.iter().map(|c| c.task_avg);
    let (low, high) = (shares().fold(1.0, f64::min), shares().fold(0.0, f64::max));
    let wide = ((WIDTH as i32 - LEFT - 20) / alphas.len() as i32).min(110);
    let bottom = TOP + HEIGHT * betas.len() as i32;
    let drawing = draw((bottom + 48) as u32, |sheet| {
        let mut marked = None;
        for c in &choice.candidates {
            let (column, row) = (place(&alphas, c.alpha), place(&betas, c.beta));
            let (x, y) = (LEFT + wide * column, bottom - HEIGHT * (row + 1));
            let colour = sequential(if high > low { (c.task_avg - low) / (high - low) } else { 0.5 });
            let corners = [(x + 1, y + 1), (x + wide - 1, y + HEIGHT - 1)];
            let middle = (x + wide / 2, y + HEIGHT / 2);
            fill(sheet, corners, &colour)?;
            if c.model == choice.best {
                write(sheet, &format!("★ {}", percent(c.task_avg)), &bold(TEXT, on(colour)), Side::Middle, middle)?;
                marked = Some(corners);
            } else {
                write(sheet, &percent(c.task_avg), &coloured(TEXT, on(colour)), Side::Middle, middle)?;
            }
        }
        if let Some(corners) = marked {
            frame(sheet, corners, &INK, 3)?;
        }
        for (i, alpha) in alphas.iter().enumerate() {
            let x = LEFT + wide * i as i32 + wide / 2;
            write(sheet, &alpha.to_string(), &ink(SMALL), Side::Middle, (x, bottom + 12))?;
        }
        for (i, beta) in betas.iter().enumerate() {
            let y = bottom - HEIGHT * i as i32 - HEIGHT / 2;
            write(sheet, &beta.to_string(), &ink(SMALL), Side::Left, (LEFT - 8, y))?;
        }
        write(sheet, "β", &ink(TEXT), Side::Right, (14, i32::midpoint(TOP, bottom)))?;
        write(sheet, "α", &ink(TEXT), Side::Middle, (LEFT + wide * alphas.len() as i32 / 2, bottom + 32))
    })?;
    let best = choice.candidates.iter().find(|c| c.model == choice.best);
    let best = best.map_or_else(|| choice.best.clone(), |c| format!("{}, {} %", c.model, percent(c.task_avg)));
    let alt = format!(
        "Task average in % on validation images for {} values of α and {} of β, mean over {}: from {} to {} %. The best is {best}.",
        alphas.len(),
        betas.len(),
        of_them(choice.n_sets, "merge set", "merge sets"),
        percent(low),
        percent(high)
    );
    let title = format!("{case}: {}, task average on validation images, %", choice.name);
    Ok(Some(Figure::new(Place::Choice(index), &format!("choice-{case}"), &title, &alt, &drawing)))
}

fn distinct(choice: &ChoiceResult, of: fn(&CandidateResult) -> Option<f64>) -> Vec<f64> {
    let mut all: Vec<f64> = choice.candidates.iter().filter_map(of).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

fn place(all: &[f64], x: Option<f64>) -> i32 {
    all.iter().position(|y| Some(*y) == x).unwrap_or(0) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn the_best_is_starred_and_other_choices_have_no_map() {
        let mut choice = invented::results().cases.remove(0).choices.remove(0);
        let drawn = figure(&choice, "5 + 5", 0).unwrap().unwrap();
        assert_eq!(drawn.svg.matches('★').count(), 1);
        assert!(drawn.alt.contains("5 values of α and 4 of β"), "{}", drawn.alt);
        choice.candidates[3].alpha = None;
        assert_eq!(figure(&choice, "5 + 5", 0).unwrap(), None);
    }
}
