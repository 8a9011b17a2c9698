//! What is drawn, before it is known how: cards for chains of nodes, arrows between them, a frame around what belongs to
//! one model alone.

use std::collections::{BTreeMap, BTreeSet};
use zipit::Graph;
use zipit::graph::{Fixed, Node, Op, Spaces};

/// What is known of the feature spaces beside the graph.
pub struct Marks {
    /// Space → what was done with it; these are drawn thick, and the other free ones dashed.
    pub notes: BTreeMap<String, String>,
    /// What a thick border means.
    pub thick: String,
    /// What a dashed one means.
    pub dashed: String,
}

/// A drawing of one network.
pub struct Picture {
    /// What it shows, and how to read it.
    pub title: Vec<String>,
    pub cards: Vec<Card>,
    pub arrows: Vec<Arrow>,
    /// Titles of the frames.
    pub frames: Vec<String>,
    /// Number of nodes of the graph.
    pub n_nodes: usize,
}

/// One box: a node, or a chain of nodes in one feature space.
pub struct Card {
    /// Columns are aligned if set in a font of fixed width.
    pub lines: Vec<String>,
    /// `#rrggbb`
    pub fill: String,
    pub border: Border,
    pub frame: Option<usize>,
}

/// From card to card.
pub struct Arrow {
    pub from: usize,
    pub to: usize,
    /// Not what `from` makes goes along it, but all that `from` reads.
    pub bundle: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Border {
    Plain,
    Thick,
    Dashed,
}

impl Picture {
    /// `roles`: output → what it predicts.
    pub fn new(
        title: &str,
        graph: &Graph,
        roles: &BTreeMap<&str, String>,
        marks: Option<&Marks>,
    ) -> anyhow::Result<Self> {
        let spaces = graph.spaces()?;
        let shapes = graph.shapes()?;
        let owners: Vec<Option<u32>> = graph.nodes.iter().map(|node| owner(&node.name)).collect();
        let models: Vec<u32> = owners.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let line = |name: &str, kind: &str| {
            let shape: Vec<String> = shapes[name].iter().map(ToString::to_string).collect();
            [name.to_owned(), kind.to_owned(), shape.join("×")]
        };
        let mut chains =
            vec![Chain { owner: None, last: &graph.input.name, rows: vec![line(&graph.input.name, "input")] }];
        let mut arrows = Vec::new();
        // Value → the card that makes it.
        let mut made: BTreeMap<&str, usize> = BTreeMap::from([(graph.input.name.as_str(), 0)]);
        let readers = graph.readers();
        for (i, (node, &owner)) in graph.nodes.iter().zip(&owners).enumerate() {
            let row = line(&node.name, node.op.kind());
            let at = match continued(graph, &spaces, &readers, node) {
                Some(before) if chains[made[before]].owner == owner => {
                    let at = made[before];
                    chains[at].rows.push(row);
                    chains[at].last = &node.name;
                    at
                }
                _ => {
                    let at = chains.len();
                    let bundle = bundle(&graph.nodes[..i], node);
                    let rest = &node.inputs[bundle.map_or(0, |first| first.inputs.len())..];
                    let from: BTreeSet<usize> = rest.iter().map(|input| made[input.as_str()]).collect();
                    arrows.extend(from.into_iter().map(|from| Arrow { from, to: at, bundle: false }));
                    if let Some(first) = bundle {
                        arrows.push(Arrow { from: made[first.name.as_str()], to: at, bundle: true });
                    }
                    chains.push(Chain { owner, last: &node.name, rows: vec![row] });
                    at
                }
            };
            made.insert(&node.name, at);
        }
        let cards: Vec<Card> = chains
            .iter()
            .map(|chain| {
                let mut lines = aligned(&chain.rows);
                let (label, border) = space_label(&spaces, chain.last, marks);
                lines.push(label);
                if let Some(role) = roles.get(chain.last) {
                    lines.push(role.clone());
                } else if graph.outputs.iter().any(|output| output == chain.last) {
                    lines.push("output".to_owned());
                }
                let border = match (marks, chain.owner) {
                    (None, Some(_)) => Border::Dashed,
                    (None, None) if !models.is_empty() => Border::Thick,
                    _ => border,
                };
                Card {
                    lines,
                    fill: fill(&spaces, chain.last),
                    border,
                    frame: chain.owner.and_then(|i| models.binary_search(&i).ok()),
                }
            })
            .collect();
        let n_free = spaces.spaces.iter().filter(|space| space.fixed.is_none()).count();
        let mut title = vec![
            title.to_owned(),
            format!("{}: {} nodes, {n_free} free feature spaces", graph.arch, graph.nodes.len()),
            "colour and # number: feature space; grey: fixed, never merged".to_owned(),
        ];
        if let Some(marks) = marks {
            title.push(format!("thick border: {}; dashed: {}", marks.thick, marks.dashed));
        } else if !models.is_empty() {
            title.push("thick border: shared by all models; dashed: one model's own".to_owned());
        }
        if arrows.iter().any(|arrow| arrow.bundle) {
            title.push("dashed arrow: not what the upper one makes but all that it reads".to_owned());
        }
        let frames = models.iter().map(|i| format!("model {i} alone")).collect();
        Ok(Self { title, cards, arrows, frames, n_nodes: graph.nodes.len() })
    }
}

struct Chain<'a> {
    owner: Option<u32>,
    /// The value that leaves it.
    last: &'a str,
    /// Name, op and shape of each node.
    rows: Vec<[String; 3]>,
}

/// The model whose own the node is: merged networks call such nodes `models.{i}.{name}`.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("models.")?.split_once('.')?.0.parse().ok()
}

/// The value that `node` goes on from within the same card: the only one it reads, which nothing else reads, of the same
/// features.
fn continued<'a>(
    graph: &Graph,
    spaces: &Spaces,
    readers: &BTreeMap<&str, Vec<usize>>,
    node: &'a Node,
) -> Option<&'a str> {
    let [before] = &node.inputs[..] else { return None };
    let before = before.as_str();
    let alone = readers.get(before).is_some_and(|readers| readers.len() == 1);
    let seen = before == graph.input.name || graph.outputs.iter().any(|output| output == before);
    let same =
        spaces.axes[before] == spaces.axes[&node.name] && spaces.orders.get(before) == spaces.orders.get(&node.name);
    (alone && !seen && same).then_some(before)
}

/// The last earlier Concat whose inputs, three or more, are the first ones of this Concat: in a densely connected network
/// one arrow then stands for many.
fn bundle<'a>(earlier: &'a [Node], node: &Node) -> Option<&'a Node> {
    let is_concat = |node: &Node| matches!(node.op, Op::Concat);
    let begins = |first: &Node| first.inputs.len() > 2 && node.inputs.starts_with(&first.inputs);
    earlier.iter().rev().find(|first| is_concat(node) && is_concat(first) && begins(first))
}

/// Every column as wide as its widest entry.
fn aligned(rows: &[[String; 3]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, kinds) = (width(0), width(1));
    rows.iter().map(|[name, kind, shape]| format!("{name:names$}  {kind:kinds$}  {shape}")).collect()
}

/// The spaces along a value's feature axis in words.
fn space_label(spaces: &Spaces, value: &str, marks: Option<&Marks>) -> (String, Border) {
    let mut border = Border::Plain;
    let parts: Vec<String> = spaces.axes[value]
        .iter()
        .map(|segment| {
            let space = &spaces.spaces[segment.space];
            let mut text = format!("#{} {}", segment.space, space.name);
            if segment.repeat > 1 {
                text += &format!(" (each {} times)", segment.repeat);
            }
            match (space.fixed, marks.map(|marks| marks.notes.get(&space.name))) {
                (Some(Fixed::Input), _) => text += ", fixed: input",
                (Some(Fixed::Output), _) => text += ", fixed: output",
                (Some(Fixed::Bound), _) => text += ", fixed: its blocks belong to a fixed space's",
                (Some(Fixed::Tied), _) => text += ", fixed: features of one layer are tied to each other",
                (Some(Fixed::Blocks), _) => text += ", fixed: its blocks are from parts or of two sizes",
                (None, Some(Some(note))) => {
                    text += &format!(", {note}");
                    border = Border::Thick;
                }
                (None, Some(None)) if border == Border::Plain => border = Border::Dashed,
                (None, _) => {}
            }
            text
        })
        .collect();
    let label = match &parts[..] {
        [first, .., last] if parts.len() > 3 => format!("{} spaces: {first} + … + {last}", parts.len()),
        _ => parts.join(" + "),
    };
    (label, border)
}

/// A light colour that neighbouring spaces do not share; grey where all features are fixed.
fn fill(spaces: &Spaces, value: &str) -> String {
    let free = spaces.axes[value].iter().map(|segment| segment.space).find(|&id| spaces.spaces[id].fixed.is_none());
    let Some(id) = free else { return "#e4e4e4".to_owned() };
    // Steps of the golden angle never come near an earlier hue for long.
    let hue = (id as f64 * 137.508) % 360.0;
    let channel = |shift: f64| {
        let k = (shift + hue / 30.0) % 12.0;
        let value = 0.85 - 0.12 * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0.0), channel(8.0), channel(4.0))
}
