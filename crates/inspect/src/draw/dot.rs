//! Graphviz's language.

use super::picture::{Border, Card, Picture};

/// The picture as DOT.
pub fn dot(picture: &Picture) -> String {
    let mut text = String::from("digraph network {\n");
    text += "  graph [fontname=\"monospace\", labelloc=t, labeljust=l, rankdir=TB];\n";
    text += "  node [shape=box, style=filled, fontname=\"monospace\", fontsize=10];\n";
    text += &format!("  label={};\n", quoted(&picture.title));
    for (i, card) in picture.cards.iter().enumerate().filter(|(_, card)| card.frame.is_none()) {
        text += &format!("  {}", node(i, card));
    }
    for (f, frame) in picture.frames.iter().enumerate() {
        text += &format!("  subgraph cluster_{f} {{\n    label={};\n", quoted(std::slice::from_ref(frame)));
        text += "    style=filled; color=\"#909090\"; fillcolor=\"#f6f6f6\";\n";
        for (i, card) in picture.cards.iter().enumerate().filter(|(_, card)| card.frame == Some(f)) {
            text += &format!("    {}", node(i, card));
        }
        text += "  }\n";
    }
    for arrow in &picture.arrows {
        let look = if arrow.bundle { " [style=dashed]" } else { "" };
        text += &format!("  n{} -> n{}{look};\n", arrow.from, arrow.to);
    }
    text + "}\n"
}

fn node(i: usize, card: &Card) -> String {
    let border = match card.border {
        Border::Plain => "",
        Border::Thick => ", penwidth=2.5",
        Border::Dashed => ", style=\"filled,dashed\"",
    };
    format!("n{i} [label={}, fillcolor=\"{}\"{border}];\n", quoted(&card.lines), card.fill)
}

/// Lines, left-aligned. A backslash of a name is no escape.
fn quoted(lines: &[String]) -> String {
    let lines: String =
        lines.iter().map(|line| line.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ") + "\\l").collect();
    format!("\"{lines}\"")
}
