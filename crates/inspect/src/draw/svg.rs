//! A drawing: placed by the `dagre` crate (Sugiyama's layers, frames kept together), spelled as SVG here.

use super::picture::{Border, Card, Picture};
use dagre::graph::{Graph, GraphOptions};
use dagre::{EdgeLabel, LayoutOptions, NodeLabel, Point, layout};

/// Text height and line height, in pixels.
const FONT: f64 = 12.0;
const LINE: f64 = 15.0;
/// Width of a letter of a font of fixed width.
const LETTER: f64 = 0.602 * FONT;
const PADDING: f64 = 8.0;
const MARGIN: f64 = 20.0;

/// The picture as SVG.
pub fn svg(picture: &Picture) -> String {
    let placed = place(picture);
    let top = MARGIN + LINE * (picture.title.len() as f64 + 1.0);
    let at = |name: &str| {
        let label = placed.node(name);
        let number = |x: Option<f64>| x.unwrap_or_default();
        label.map_or([0.0; 4], |l| [number(l.x) - l.width / 2.0, number(l.y) - l.height / 2.0 + top, l.width, l.height])
    };
    let mut body = String::new();
    for (i, title) in picture.frames.iter().enumerate() {
        let [x, y, w, h] = at(&frame(i));
        body += &format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"#f6f6f6\" stroke=\"#909090\"/>\n"
        );
        body += &text(x + PADDING, y + LINE, title, true);
    }
    let mut right: f64 = picture.title.iter().map(|line| width(line)).fold(0.0, f64::max) + MARGIN;
    let mut bottom = top;
    for arrow in &picture.arrows {
        let (from, to) = (arrow.from, arrow.to);
        let points = placed.edge(&card(from), &card(to), None).map(|label| label.points.clone()).unwrap_or_default();
        right = points.iter().map(|p| p.x).fold(right, f64::max);
        body += &curve(&points, top, arrow.bundle);
    }
    for (i, drawn) in picture.cards.iter().enumerate() {
        let rect = at(&card(i));
        body += &boxed(drawn, rect);
        right = right.max(rect[0] + rect[2]);
        bottom = bottom.max(rect[1] + rect[3]);
    }
    for i in 0..picture.frames.len() {
        let [x, y, w, h] = at(&frame(i));
        right = right.max(x + w);
        bottom = bottom.max(y + h);
    }
    for (i, line) in picture.title.iter().enumerate() {
        body += &text(MARGIN, MARGIN + LINE * (i as f64 + 0.8), line, i == 0);
    }
    let (w, h) = ((right + MARGIN).ceil(), (bottom + MARGIN).ceil());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"{FONT}\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 10 8\" refX=\"9\" refY=\"4\" markerWidth=\"8\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0 L10 4 L0 8 z\" fill=\"#444\"/></marker></defs>\n\
         <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn card(i: usize) -> String {
    format!("card {i}")
}

fn frame(i: usize) -> String {
    format!("frame {i}")
}

fn width(line: &str) -> f64 {
    line.chars().count() as f64 * LETTER
}

fn place(picture: &Picture) -> Graph<NodeLabel, EdgeLabel> {
    let mut graph = Graph::with_options(GraphOptions { directed: true, multigraph: false, compound: true });
    for i in 0..picture.frames.len() {
        graph.set_node(frame(i), Some(NodeLabel::default()));
    }
    for (i, drawn) in picture.cards.iter().enumerate() {
        let label = NodeLabel {
            width: drawn.lines.iter().map(|line| width(line)).fold(0.0, f64::max) + 2.0 * PADDING,
            height: drawn.lines.len() as f64 * LINE + PADDING,
            ..NodeLabel::default()
        };
        graph.set_node(card(i), Some(label));
        if let Some(f) = drawn.frame {
            graph.set_parent(&card(i), Some(&frame(f)));
        }
    }
    for arrow in &picture.arrows {
        graph.set_edge(card(arrow.from), card(arrow.to), Some(EdgeLabel::default()), None);
    }
    let options = LayoutOptions {
        nodesep: 24.0,
        edgesep: 16.0,
        ranksep: 28.0,
        marginx: MARGIN,
        marginy: MARGIN,
        ..LayoutOptions::default()
    };
    layout(&mut graph, Some(options));
    graph
}

fn boxed(card: &Card, [x, y, w, h]: [f64; 4]) -> String {
    let border = match card.border {
        Border::Plain => "stroke=\"#555\"",
        Border::Thick => "stroke=\"#222\" stroke-width=\"2.5\"",
        Border::Dashed => "stroke=\"#555\" stroke-dasharray=\"5 3\"",
    };
    let mut out = format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"3\" fill=\"{}\" {border}/>\n",
        card.fill
    );
    for (i, line) in card.lines.iter().enumerate() {
        out += &text(x + PADDING, y + PADDING / 2.0 + LINE * (i as f64 + 0.8), line, false);
    }
    out
}

fn text(x: f64, y: f64, line: &str, bold: bool) -> String {
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" xml:space=\"preserve\"{weight}>{}</text>\n", escaped(line))
}

/// XML has no way to write most control characters.
fn escaped(line: &str) -> String {
    line.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            c if c.is_control() => "\u{fffd}".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// A line from point to point whose corners are rounded.
fn curve(points: &[Point], top: f64, dashed: bool) -> String {
    let ([first, .., last], n) = (points, points.len()) else { return String::new() };
    let mut path = format!("M{:.1} {:.1}", first.x, first.y + top);
    for i in 1..n - 1 {
        let (corner, next) = (&points[i], &points[i + 1]);
        let end = if i + 2 == n {
            [next.x, next.y]
        } else {
            [f64::midpoint(corner.x, next.x), f64::midpoint(corner.y, next.y)]
        };
        path += &format!(" Q{:.1} {:.1} {:.1} {:.1}", corner.x, corner.y + top, end[0], end[1] + top);
    }
    if n == 2 {
        path += &format!(" L{:.1} {:.1}", last.x, last.y + top);
    }
    let dashes = if dashed { " stroke-dasharray=\"5 3\"" } else { "" };
    format!(
        "<path d=\"{path}\"{dashes} fill=\"none\" stroke=\"#444\" stroke-width=\"1.2\" marker-end=\"url(#tip)\"/>\n"
    )
}
