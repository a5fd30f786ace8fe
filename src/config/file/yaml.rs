//! A YAML document as a tree that knows where each node stands. The parser is saphyr's; what a configuration has no use for
//! (tags, several documents, keys that are no scalars) is a mistake here.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::mistake::{Mistake, Mistakes, Position};

/// What word processors make of a dash.
pub const DASHES: [char; 4] = ['–', '—', '‐', '−'];

/// What is said of them.
pub const DASH_HINT: &str =
    "; the dash in this line is a typographic one, a list item begins with '-'";

/// Deeper than that nothing is understood anyway.
const DEPTH_MAX: usize = 16;

/// Most nodes, aliases written out: a few lines of aliases could stand for any number.
const NODES_MAX: usize = 200_000;

/// A node and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: Position,
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Text, whichever way it was quoted.
    Scalar(String),
    /// Nothing at all, or a plain `~` or `null`.
    Empty,
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file.
    Map(Vec<(Node, Node)>),
}

impl Kind {
    /// What it is, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Scalar(_) => "a value",
            Kind::Empty => "nothing",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a block of keys",
        }
    }
}

/// Reads the only document of `text`. Everything up to the first syntax error is in the tree, so that what is wrong there is
/// found as well.
pub fn read(text: &str, mistakes: &mut Mistakes) -> Option<Node> {
    let mut reader = Reader {
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
    };
    let lines = lines(text);
    for event in Parser::new(StrInput::new(text)) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = position(&lines, error.marker());
                mistakes.add(syntax(&lines, at, error.info()));
                break;
            }
        };
        if let Err(mistake) = reader.take(event, position(&lines, &span.start)) {
            mistakes.add(mistake);
            break;
        }
    }
    while !reader.open.is_empty() {
        reader.close();
    }
    reader.root
}

/// Where `marker` is in a text of these lines: the parser looks ahead, at times behind the end.
fn position(lines: &[&str], marker: &Marker) -> Position {
    let line = marker.line().clamp(1, lines.len().max(1));
    let length = lines.get(line - 1).map_or(0, |line| line.chars().count());
    Position {
        line,
        column: (marker.col() + 1).min(length + 1),
    }
}

/// The lines of `text`, as YAML divides it.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.split('\n');
    let lines = lines.flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    lines.collect()
}

/// What the parser says, with what is often behind it.
fn syntax(lines: &[&str], at: Position, info: &str) -> Mistake {
    let line = lines.get(at.line - 1).copied().unwrap_or_default();
    let hint = if line.trim_start() != line
        && line[..line.len() - line.trim_start().len()].contains('\t')
    {
        "; lines are indented by blanks, not by tabs"
    } else if line.contains(DASHES) {
        DASH_HINT
    } else if line.contains(['“', '”', '‘', '’']) {
        "; the quotation marks in this line are typographic ones"
    } else if line.contains(['：', '，', '＃', '\u{3000}', '\u{a0}']) {
        "; there is a full-width character or a blank that is none in this line"
    } else {
        ""
    };
    Mistake::new(at, line.trim(), format!("not valid YAML: {info}{hint}"))
}

struct Open {
    node: Node,
    /// The key whose value comes next.
    key: Option<Node>,
    anchor: usize,
}

struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Mistake> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err(Mistake::new(
                at,
                "---",
                "a second document (all pools are in one)",
            )),
            Event::Scalar(text, style, anchor, _) => {
                let kind = match (&*text, style) {
                    ("" | "~" | "null", ScalarStyle::Plain) => Kind::Empty,
                    _ => Kind::Scalar(Cow::into_owned(text)),
                };
                let node = Node { at, kind };
                self.remember(anchor, &node, 1);
                self.put(node, 1)
            }
            Event::SequenceStart(anchor, _) => self.begin(Kind::List(Vec::new()), at, anchor),
            Event::MappingStart(anchor, _) => self.begin(Kind::Map(Vec::new()), at, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                self.close();
                Ok(())
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, size)) => {
                    let (mut node, size) = (node.clone(), *size);
                    // The mistake is in what stands there, but it is here that it is used.
                    node.at = at;
                    self.put(node, size)
                }
                None => Err(Mistake::new(at, "*", "an alias of itself")),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, kind: Kind, at: Position, anchor: usize) -> Result<(), Mistake> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Mistake::new(at, "", "nested too deeply"));
        }
        self.open.push(Open {
            node: Node { at, kind },
            key: None,
            anchor,
        });
        Ok(())
    }

    fn close(&mut self) {
        let Some(open) = self.open.pop() else {
            return;
        };
        let mut node = open.node;
        if let (Kind::Map(entries), Some(key)) = (&mut node.kind, open.key) {
            let at = key.at;
            entries.push((
                key,
                Node {
                    at,
                    kind: Kind::Empty,
                },
            ));
        }
        if open.anchor > 0 {
            let size = size(&node);
            self.remember(open.anchor, &node, size);
        }
        // Its size was counted as it came; there is nothing that could be refused.
        let _ = self.put(node, 0);
    }

    fn remember(&mut self, anchor: usize, node: &Node, size: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
    }

    fn put(&mut self, node: Node, size: usize) -> Result<(), Mistake> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            return Err(Mistake::new(node.at, "", "the file is too large"));
        }
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return Ok(());
        };
        match (&mut open.node.kind, open.key.take()) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(entries), Some(key)) => entries.push((key, node)),
            (Kind::Map(_), None) => {
                if !matches!(node.kind, Kind::Scalar(_) | Kind::Empty) {
                    return Err(Mistake::new(node.at, "", "a key must be plain text"));
                }
                open.key = Some(node);
            }
            _ => {}
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(_) | Kind::Empty => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => {
            let sizes = entries.iter().map(|(key, value)| size(key) + size(value));
            1 + sizes.sum::<usize>()
        }
    }
}
