//! Line plots as inline SVG: no script is needed to read them, and they print.

use std::fmt::Write as _;

use crate::show::{plain, shown};
use crate::unit::Unit;

/// Most points of a line; a longer series is gathered, each point the largest of its seconds.
pub(super) const POINTS_MAX: usize = 600;
/// Lines of one plot that are told apart by colour.
pub(super) const LINES_MAX: usize = 6;

/// The drawing in its own units; the page scales it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// For the legend.
    pub name: String,
    /// Which of the page's colours.
    pub colour: usize,
    /// One value a point of the plot's time axis; `None` breaks the line.
    pub values: Vec<Option<f64>>,
}

/// One plot.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// What it shows.
    pub title: String,
    /// Of all its values.
    pub unit: Unit,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Plot {
    /// True if there is anything to draw.
    pub(super) fn has_values(&self) -> bool {
        self.lines.iter().any(|line| line.values.iter().any(Option::is_some))
    }

    /// As an `<svg>` element. `window` is the measured window in seconds.
    pub(super) fn svg(&self, t_s: &[f64], window: Option<(f64, f64)>) -> String {
        let values = || self.lines.iter().flat_map(|line| &line.values).flatten();
        let largest = values().copied().fold(0.0, f64::max);
        let ticks = ticks(largest);
        let top = ticks.last().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
        let end = t_s.last().copied().unwrap_or(1.0).max(1.0);
        let x = |t: f64| LEFT + (WIDTH - LEFT - RIGHT) * (t / end).clamp(0.0, 1.0);
        let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value / top).clamp(0.0, 1.0));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" \
             data-left=\"{LEFT}\" data-right=\"{RIGHT}\" data-end=\"{end}\">",
            escaped(&self.title)
        );
        if let Some((from, to)) = window {
            let _ = write!(
                svg,
                "<rect class=\"window\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x(from),
                (x(to) - x(from)).max(0.0),
                HEIGHT - TOP - BOTTOM
            );
        }
        for tick in &ticks {
            let at = y(*tick);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escaped(&label(*tick, self.unit))
            );
        }
        for tick in time_ticks(end) {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(tick),
                HEIGHT - 7.0,
                clock(tick)
            );
        }
        for line in &self.lines {
            line.draw(&mut svg, t_s, x, y);
        }
        svg.push_str("<path class=\"cursor\" d=\"\"/></svg>");
        svg
    }
}

impl Line {
    fn draw(&self, svg: &mut String, t_s: &[f64], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
        let mut path = String::new();
        let mut drawing = false;
        let mut alone: Vec<(f64, f64)> = Vec::new();
        for (index, (t, value)) in t_s.iter().zip(&self.values).enumerate() {
            let Some(value) = value else {
                drawing = false;
                continue;
            };
            let (x, y) = (x(*t), y(*value));
            let next = self.values.get(index + 1).copied().flatten();
            if !drawing && next.is_none() {
                alone.push((x, y));
                continue;
            }
            let _ = write!(path, "{}{x:.1} {y:.1}", if drawing { 'L' } else { 'M' });
            drawing = true;
        }
        let colour = self.colour % LINES_MAX;
        let _ = write!(svg, "<path class=\"line c{colour}\" d=\"{path}\"/>");
        // A point between two gaps would have no length, and so not be seen.
        for (x, y) in alone {
            let _ = write!(
                svg,
                "<circle class=\"dot c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>"
            );
        }
    }
}

/// 0 and up to four round steps that reach `largest`.
fn ticks(largest: f64) -> Vec<f64> {
    if largest <= 0.0 || !largest.is_finite() {
        return vec![0.0, 1.0];
    }
    let rough = largest / 4.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * magnitude);
    let step = nice.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(largest);
    let count = (largest / step).ceil().clamp(1.0, 10.0) as usize;
    (0..=count).map(|index| index as f64 * step).collect()
}

pub(super) fn time_ticks(end: f64) -> Vec<f64> {
    const STEPS: [f64; 14] = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 10_800.0,
        21_600.0,
    ];
    let step = STEPS.into_iter().find(|step| end / step <= 6.0).unwrap_or(end / 6.0);
    (0..=6).map(|index| f64::from(index) * step).take_while(|tick| *tick <= end).collect()
}

/// `45 s`, `2:30`, `1:02:30`.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Short enough for the axis.
fn label(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Plain if value >= 1e6 => format!("{}M", plain(value / 1e6)),
        Unit::Plain if value >= 1e4 => format!("{}k", plain(value / 1e3)),
        Unit::Share => format!("{} %", plain(value * 100.0)),
        Unit::BitsPerSecond if value >= 1e9 => format!("{} Gbps", plain(value / 1e9)),
        Unit::BitsPerSecond if value >= 1e6 => format!("{} Mbps", plain(value / 1e6)),
        Unit::BitsPerSecond => format!("{} kbps", plain(value / 1e3)),
        unit => shown(value, unit),
    }
}

/// For text and attributes of HTML and SVG.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Points to draw: the rows themselves, or the largest value of each run of them. Gives the time
/// of each point and how many rows it stands for.
pub(super) fn gather(t_s: &[f64]) -> (Vec<f64>, usize) {
    let each = t_s.len().div_ceil(POINTS_MAX).max(1);
    (t_s.chunks(each).filter_map(|chunk| chunk.last().copied()).collect(), each)
}

/// The same for values.
pub(super) fn gathered(values: &[Option<f64>], each: usize) -> Vec<Option<f64>> {
    let largest = |chunk: &[Option<f64>]| chunk.iter().copied().flatten().reduce(f64::max);
    values.chunks(each).map(largest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round_and_reach_the_largest_value() {
        for (largest, last, count) in
            [(0.0, 1.0, 2), (1.0, 1.0, 5), (7.0, 8.0, 5), (1_870.0, 2_000.0, 5), (0.034, 0.04, 5)]
        {
            let ticks = ticks(largest);
            assert!((ticks.last().unwrap() - last).abs() < 1e-9, "{largest}: {ticks:?}");
            assert_eq!(ticks.len(), count, "{largest}: {ticks:?}");
        }
        assert_eq!(time_ticks(33.0), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(
            (clock(45.0), clock(150.0), clock(3_750.0)),
            ("45 s".into(), "2:30".into(), "1:02:30".into())
        );
    }

    #[test]
    fn unknown_values_break_the_line_and_lone_ones_are_dots() {
        let values = vec![Some(1.0), Some(2.0), None, Some(3.0), None];
        let line = Line { name: "a".to_owned(), colour: 0, values };
        let plot = Plot { title: "<t>".to_owned(), unit: Unit::Plain, lines: vec![line] };
        let svg = plot.svg(&[0.0, 1.0, 2.0, 3.0, 4.0], Some((1.0, 3.0)));
        let path = svg.split("class=\"line c0\" d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (1, 1), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("aria-label=\"&lt;t&gt;\"") && !svg.contains("NaN"));
    }

    #[test]
    fn long_series_keep_their_peaks() {
        let t_s: Vec<f64> = (0..86_400).map(f64::from).collect();
        let mut values = vec![Some(0.0); t_s.len()];
        values[50_001] = Some(9.0);
        values[50_002] = None;
        let (points, each) = gather(&t_s);
        let values = gathered(&values, each);
        assert!(points.len() <= POINTS_MAX && points.len() == values.len());
        assert_eq!(values.iter().flatten().copied().fold(0.0, f64::max), 9.0);
    }
}
