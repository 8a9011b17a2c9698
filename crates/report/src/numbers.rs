//! Numbers in words: how accuracies, costs, counts and times are printed everywhere.

use crate::results::Stat;
use indicatif::HumanCount;

/// What stands for a number that is not there.
pub const NOTHING: &str = "–";

/// A share in %: `95.54`.
pub fn percent(share: f64) -> String {
    fixed(100.0 * share)
}

/// Mean and standard deviation in %: `95.54 ± 0.12`; of one merge set the mean alone.
pub fn percents(stat: &Stat) -> String {
    match stat.std.filter(|std| std.is_finite() && stat.mean.is_finite()) {
        Some(std) => format!("{} ± {}", percent(stat.mean), percent(std)),
        None => percent(stat.mean),
    }
}

/// Two decimals: `0.98`.
pub fn fixed(x: f64) -> String {
    let text = if x.is_finite() { format!("{x:.2}") } else { NOTHING.to_owned() };
    if text == "-0.00" { "0.00".to_owned() } else { text }
}

/// In millions: `0.27`.
pub fn millions(x: f64) -> String {
    fixed(x / 1e6)
}

/// With a comma every three digits: `2,000`.
pub fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return NOTHING.to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => {
            let minutes = (seconds / 60.0).round() as u64;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// `1 merge set`, `9 merge sets`.
pub fn of_them(n: usize, one: &str, several: &str) -> String {
    format!("{} {}", count(n as u64), if n == 1 { one } else { several })
}

/// A name on one line, without what XML cannot hold.
pub fn line(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_has_two_decimals_and_its_deviation() {
        assert_eq!(percents(&Stat { mean: 0.955_44, std: Some(0.001_21), values: vec![] }), "95.54 ± 0.12");
        assert_eq!(percents(&Stat { mean: 1.0, std: None, values: vec![1.0] }), "100.00");
    }

    #[test]
    fn what_is_no_number_is_a_dash() {
        assert_eq!(percents(&Stat { mean: f64::NAN, std: Some(f64::NAN), values: vec![] }), "–");
        assert_eq!(percents(&Stat { mean: 0.5, std: Some(f64::NAN), values: vec![] }), "50.00");
        assert_eq!([percent(f64::INFINITY), millions(f64::NAN), duration(f64::NAN)], ["–"; 3]);
        assert_eq!(fixed(-0.001), "0.00");
    }

    #[test]
    fn counts_and_times_are_for_people() {
        assert_eq!([count(999), count(1_234_567)], ["999", "1,234,567"]);
        let times = [0.44, 9.96, 59.4, 200.0, 3599.0, 3600.0, 7500.0].map(duration);
        assert_eq!(times, ["0.4 s", "10 s", "59 s", "3 min 20 s", "59 min 59 s", "1 h 00 min", "2 h 05 min"]);
        assert_eq!(of_them(1, "set", "sets"), "1 set");
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(line("a\nb\u{1}"), "a b\u{fffd}");
    }
}
