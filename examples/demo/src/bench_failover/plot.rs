//! A plot of how soon clients were served: for each contender the share of them that had been, over time.

use std::fmt::Write as _;

/// One line: its name, and when each client was served, in seconds; none for those that never were.
#[derive(Clone, Debug)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// One entry for each client.
    pub served: Vec<Option<f64>>,
}

/// A panel: its title and its lines.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What stands above it.
    pub title: String,
    /// In the order of the legend.
    pub lines: Vec<Line>,
}

/// Draws panels beside each other, with a common legend; time is logarithmic, from a tenth of a second to `end` seconds.
pub fn draw(panels: &[Panel], end: f64) -> String {
    let width = LEFT + panels.len() as f64 * (PANEL + GAP);
    let names: Vec<&str> =
        panels.first().map_or(Vec::new(), |panel| panel.lines.iter().map(|line| line.name.as_str()).collect());
    let height = TOP + HEIGHT + 60.0 + 20.0 * names.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        draw_panel(&mut svg, panel, LEFT + index as f64 * (PANEL + GAP), end);
    }
    for (index, name) in names.iter().enumerate() {
        let y = TOP + HEIGHT + 60.0 + 20.0 * index as f64;
        let (color, dashes) = style(index);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{color}\" stroke-width=\"2.5\"{dashes}/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + 30.0,
            LEFT + 38.0,
            y + 4.0,
            escape(name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, panel: &Panel, left: f64, end: f64) {
    let x = |seconds: f64| left + PANEL * (seconds.clamp(BEGIN, end) / BEGIN).ln() / (end / BEGIN).ln();
    let y = |share: f64| TOP + HEIGHT * (1.0 - share);
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>",
        left + PANEL / 2.0,
        TOP - 14.0,
        escape(&panel.title)
    );
    for tick in TICKS.into_iter().filter(|tick| *tick <= end) {
        let at = x(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{tick}</text>",
            TOP + HEIGHT,
            TOP + HEIGHT + 16.0
        );
    }
    for percent in [0, 25, 50, 75, 100] {
        let at = y(f64::from(percent) / 100.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{:.0}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            left + PANEL,
            left - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">seconds from the fault to a fresh client served</text>",
        left + PANEL / 2.0,
        TOP + HEIGHT + 34.0
    );
    for (index, line) in panel.lines.iter().enumerate() {
        let mut served: Vec<f64> = line.served.iter().flatten().copied().collect();
        served.sort_by(f64::total_cmp);
        let mut path = format!("M{:.1} {:.1}", x(BEGIN), y(0.0));
        for (count, seconds) in served.iter().enumerate() {
            let _ = write!(path, " H{:.1} V{:.1}", x(*seconds), y((count + 1) as f64 / line.served.len() as f64));
        }
        let _ = write!(path, " H{:.1}", x(end));
        let (color, dashes) = style(index);
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"{dashes}/>");
    }
}

/// Told apart by colour (Okabe and Ito's, for all kinds of eyes) and by dashes.
fn style(index: usize) -> (&'static str, &'static str) {
    const STYLES: [(&str, &str); 5] = [
        ("#0072b2", ""),
        ("#d55e00", " stroke-dasharray=\"8 3\""),
        ("#009e73", " stroke-dasharray=\"2 3\""),
        ("#cc79a7", " stroke-dasharray=\"10 3 2 3\""),
        ("#000000", " stroke-dasharray=\"5 5\""),
    ];
    STYLES[index % STYLES.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const PANEL: f64 = 340.0;
const HEIGHT: f64 = 220.0;
const GAP: f64 = 60.0;

/// Nobody is served sooner.
const BEGIN: f64 = 0.1;

const TICKS: [f64; 8] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_rises_to_the_share_that_was_served_and_not_beyond() {
        let line = |name: &str, served: &[Option<f64>]| Line { name: name.into(), served: served.into() };
        let lines = vec![line("a & b", &[Some(10.0), Some(1.0)]), line("never", &[None, None])];
        let svg = draw(&[Panel { title: "kill".into(), lines }], 100.0);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &amp; b"));
        let paths: Vec<_> = svg.lines().filter(|line| line.starts_with("<path")).collect();
        let bottom = TOP + HEIGHT;
        // A third of the way to 100 s on a logarithmic scale is 1 s, two thirds are 10 s.
        let third = PANEL / 3.0;
        let whole = format!(
            "M{:.1} {bottom:.1} H{:.1} V{:.1} H{:.1} V{TOP:.1} H{:.1}",
            LEFT,
            LEFT + third,
            TOP + HEIGHT / 2.0,
            LEFT + 2.0 * third,
            LEFT + PANEL
        );
        assert!(paths[0].contains(&whole), "{}", paths[0]);
        assert!(paths[1].contains(&format!("M{LEFT:.1} {bottom:.1} H{:.1}", LEFT + PANEL)), "{}", paths[1]);
    }
}
