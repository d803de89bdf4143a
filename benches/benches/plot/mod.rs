//! A line plot as a file of SVG, light or dark as the page it stands in.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
/// Steps of the axis upwards.
const STEPS: u32 = 5;
const COLOURS: [&str; 4] = ["#2a78d6", "#e07b39", "#3a9d5d", "#9467bd"];

/// One line; its points are sorted by `x`.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws lines from (0, 0) on; both axes are linear. At most as many lines as there are colours.
pub(crate) fn svg(x_title: &str, y_title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_most = points().map(|point| point.0).fold(1.0, f64::max);
    let y_most = points().map(|point| point.1).fold(1.0, f64::max);
    let magnitude = 10_f64.powf((y_most / f64::from(STEPS)).log10().floor());
    let step = (y_most / f64::from(STEPS) / magnitude).ceil() * magnitude;
    let top = step * f64::from(STEPS);
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / x_most;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / top);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n"
    );
    for tick in 0..=STEPS {
        let value = step * f64::from(tick);
        let at = y(value);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#8884\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let mut ticks: Vec<f64> = points().map(|point| point.0).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for value in ticks {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.0}</text>",
            x(value),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{x_title}</text>\
         <text x=\"{LEFT}\" y=\"14\">{y_title}</text>",
        WIDTH - RIGHT,
        HEIGHT - 6.0
    );
    for (index, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let mut path = String::new();
        for (at, &(px, py)) in line.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, x(px), y(py));
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(px),
                y(py)
            );
        }
        let legend = WIDTH - RIGHT - 12.0 - 130.0 * (lines.len() - index - 1) as f64;
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{legend:.1}\" y=\"28\" text-anchor=\"end\" fill=\"{colour}\">{}</text>",
            line.name
        );
    }
    out.push_str("</svg>\n");
    out
}
