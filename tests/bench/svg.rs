//! One curve on logarithmic axes, as SVG. Simple enough to need no library.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// A scale from `low` to `high` on `from..to` of the picture, with a mark at each power of ten.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Scale {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10();
        let high = values.fold(0.0, f64::max).log10();
        Scale {
            low: (low - 0.05).floor(),
            high: (high + 0.05).ceil().max((low - 0.05).floor() + 1.0),
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.low) / (self.high - self.low);
        self.from + part * (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|power| 10f64.powi(power))
    }
}

/// The picture. Points need positive coordinates.
pub fn plot(title: &str, x: &str, y: &str, points: &[(f64, f64)]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="22" font-size="15">{title}</text>"##
    );
    if points.is_empty() {
        out.push_str("</svg>\n");
        return out;
    }
    let across = Scale::new(points.iter().map(|p| p.0), LEFT, WIDTH - RIGHT);
    let up = Scale::new(points.iter().map(|p| p.1), HEIGHT - BOTTOM, TOP);
    for mark in across.marks() {
        let at = across.at(mark);
        let _ = writeln!(
            out,
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{}" stroke="#dddddd"/>
<text x="{at:.1}" y="{}" text-anchor="middle">{mark}</text>"##,
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 18.0
        );
    }
    for mark in up.marks() {
        let at = up.at(mark);
        let _ = writeln!(
            out,
            r##"<line x1="{LEFT}" y1="{at:.1}" x2="{}" y2="{at:.1}" stroke="#dddddd"/>
<text x="{}" y="{:.1}" text-anchor="end">{mark}</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        out,
        r##"<text x="{}" y="{}" text-anchor="middle">{x}</text>
<text x="16" y="{}" text-anchor="middle" transform="rotate(-90 16 {})">{y}</text>"##,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        (TOP + HEIGHT - BOTTOM) / 2.0
    );
    let line: Vec<String> = points
        .iter()
        .map(|&(x, y)| format!("{:.1},{:.1}", across.at(x), up.at(y)))
        .collect();
    let _ = writeln!(
        out,
        r##"<polyline points="{}" fill="none" stroke="#1f5fa8" stroke-width="2"/>"##,
        line.join(" ")
    );
    for &(x, y) in points {
        let (at_x, at_y) = (across.at(x), up.at(y));
        let shown = if y < 100.0 {
            format!("{y:.2}")
        } else {
            format!("{y:.0}")
        };
        let _ = writeln!(
            out,
            r##"<circle cx="{at_x:.1}" cy="{at_y:.1}" r="3" fill="#1f5fa8"/>
<text x="{at_x:.1}" y="{:.1}" text-anchor="middle" font-size="10">{shown}</text>"##,
            at_y - 8.0
        );
    }
    out.push_str("</svg>\n");
    out
}
