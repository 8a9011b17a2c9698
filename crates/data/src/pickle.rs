//! The values of a Python pickle: numbers, text, bytes, lists and dictionaries. Nothing is ever run: of what a pickle may
//! call, only NumPy's arrays are understood, as their bytes, and Python 3's way of spelling bytes for Python 2.

use std::{cell::Cell, collections::BTreeMap};

/// Deeper nesting than any data set has.
const MAX_DEPTH: usize = 64;

/// What a pickle holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    None,
    Int(i64),
    /// Text, or Python 2's strings.
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A NumPy array: shape and bytes.
    Array(Vec<usize>, Vec<u8>),
    /// What has no use here: floating-point numbers, types.
    Other,
}

impl Value {
    /// The entry of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Dict(entries) => {
                entries.iter().find(|(k, _)| matches!(k, Self::Bytes(k) if k == key.as_bytes())).map(|(_, v)| v)
            }
            _ => None,
        }
    }
}

/// On the stack: lists and dictionaries are filled after they were remembered, so all values live in one place.
#[derive(Debug, Clone)]
enum Node {
    Plain(Value),
    List(Vec<usize>),
    Dict(Vec<usize>),
    /// `module.name`.
    Global(String),
    /// An array that waits for its state, with a NumPy type beside it.
    Array(Option<Value>),
}

/// Reads the pickle. Any protocol from 0 to 5.
///
/// # Errors
/// In words: what is not a pickle of such values.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
    // A value may be recalled any number of times: a small file must not become a large one in memory.
    let left = Cell::new(16 * bytes.len() + 1_000);
    let (nodes, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    Machine { bytes, at: 0, nodes, stack, marks, memo, left }.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: BTreeMap<u64, usize>,
    /// How much more may be built.
    left: Cell<usize>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, String> {
        loop {
            let op = self.take(1)?[0];
            if op == b'.' {
                let root = self.pop()?;
                return self.value(root, 0);
            }
            self.step(op)?;
        }
    }

    fn step(&mut self, op: u8) -> Result<(), String> {
        match op {
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'N' => self.push(Node::Plain(Value::None)),
            0x88 => self.int(1),
            0x89 => self.int(0),
            b'K' => self.number(1, false)?,
            b'M' => self.number(2, false)?,
            b'J' => self.number(4, true)?,
            0x8a => {
                let n = self.length(1)?;
                self.number(n, true)?;
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let number = line.trim_end_matches('L').parse().map_err(|_| format!("`{line}` is no number"))?;
                self.int(number);
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Plain(Value::Other));
            }
            b'F' => {
                self.line()?;
                self.push(Node::Plain(Value::Other));
            }
            b'U' | b'C' | 0x8c => self.text(1)?,
            b'T' | b'B' | b'X' => self.text(4)?,
            0x8d | 0x8e | 0x96 => self.text(8)?,
            b'S' | b'V' => {
                let line = self.line()?;
                let quoted = line.trim_matches(['\'', '"']).as_bytes().to_vec();
                self.push(Node::Plain(Value::Bytes(quoted)));
            }
            b']' | b')' => self.push(Node::List(Vec::new())),
            b'l' | b't' => {
                let items = self.marked()?;
                self.push(Node::List(items));
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84);
                let items = self.stack.split_off(self.stack.len().checked_sub(n).ok_or(EMPTY)?);
                self.push(Node::List(items));
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.marked()?;
                self.push(Node::Dict(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.fill(vec![item])?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.fill(vec![key, value])?;
            }
            b'e' | b'u' => {
                let items = self.marked()?;
                self.fill(items)?;
            }
            b'q' | b'r' => {
                let slot = self.length(if op == b'q' { 1 } else { 4 })? as u64;
                self.remember(slot)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'p' => {
                let slot = self.line()?.parse().map_err(|_| "a slot is no number".to_owned())?;
                self.remember(slot)?;
            }
            b'h' | b'j' => {
                let slot = self.length(if op == b'h' { 1 } else { 4 })? as u64;
                self.recall(slot)?;
            }
            b'g' => {
                let slot = self.line()?.parse().map_err(|_| "a slot is no number".to_owned())?;
                self.recall(slot)?;
            }
            b'c' => {
                let name = format!("{}.{}", self.line()?, self.line()?);
                self.push(Node::Global(name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module], &self.nodes[name]) {
                    (Node::Plain(Value::Bytes(module)), Node::Plain(Value::Bytes(name))) => {
                        let name = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name));
                        self.push(Node::Global(name));
                    }
                    _ => return Err("a name is no text".to_owned()),
                }
            }
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => return Err(format!("instruction 0x{other:02x} does more than describe values")),
        }
        Ok(())
    }

    /// `function(*arguments)`: only what makes arrays and bytes.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Node::Global(name) = &self.nodes[function] else { return Err("a value is called".to_owned()) };
        let made = match name.as_str() {
            "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => Node::Array(None),
            "numpy.dtype" => {
                let Value::List(items) = self.value(arguments, 0)? else { return Err("a type is no list".to_owned()) };
                Node::Plain(items.into_iter().next().unwrap_or(Value::Other))
            }
            "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => match self.value(arguments, 0)? {
                Value::List(items) => match items.as_slice() {
                    [bytes, dtype, shape, order] => {
                        let fortran = Value::Int(i64::from(*order != Value::Bytes(b"C".to_vec())));
                        Node::Array(Some(array(shape, dtype, &fortran, bytes)?))
                    }
                    _ => return Err("an array has an unknown form".to_owned()),
                },
                _ => return Err("arguments are expected".to_owned()),
            },
            "_codecs.encode" => match self.value(arguments, 0)? {
                Value::List(items) => match items.as_slice() {
                    // Latin-1: every character is a byte.
                    [Value::Bytes(text), ..] => {
                        let text = String::from_utf8(text.clone()).map_err(|e| e.to_string())?;
                        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                        Node::Plain(Value::Bytes(bytes.ok_or("a string is not Latin-1")?))
                    }
                    _ => return Err("text is expected".to_owned()),
                },
                _ => return Err("arguments are expected".to_owned()),
            },
            other => return Err(format!("it calls `{other}`, which is not run here")),
        };
        self.push(made);
        Ok(())
    }

    /// The state of an array: `(version, shape, dtype, Fortran order?, bytes)`. That of a type says its byte order.
    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let target = *self.stack.last().ok_or(EMPTY)?;
        if !matches!(self.nodes[target], Node::Array(_)) {
            return Ok(());
        }
        let Value::List(state) = self.value(state, 0)? else { return Err("an array has no state".to_owned()) };
        let [_, shape, dtype, fortran, bytes] = state.as_slice() else {
            return Err("an array has an unknown state".to_owned());
        };
        self.nodes[target] = Node::Array(Some(array(shape, dtype, fortran, bytes)?));
        Ok(())
    }

    fn value(&self, node: usize, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deep".to_owned());
        }
        let size = match &self.nodes[node] {
            Node::Plain(Value::Bytes(bytes)) | Node::Array(Some(Value::Array(_, bytes))) => 1 + bytes.len(),
            _ => 1,
        };
        self.left.set(self.left.get().checked_sub(size).ok_or("it repeats itself without end")?);
        let each = |items: &[usize]| items.iter().map(|&i| self.value(i, depth + 1)).collect::<Result<Vec<_>, _>>();
        Ok(match &self.nodes[node] {
            Node::Plain(value) | Node::Array(Some(value)) => value.clone(),
            Node::List(items) => Value::List(each(items)?),
            Node::Dict(items) => {
                let mut values = each(items)?.into_iter();
                let mut entries = Vec::new();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    entries.push((key, value));
                }
                Value::Dict(entries)
            }
            Node::Global(_) | Node::Array(None) => Value::Other,
        })
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn int(&mut self, value: i64) {
        self.push(Node::Plain(Value::Int(value)));
    }

    fn pop(&mut self) -> Result<usize, String> {
        Ok(self.stack.pop().ok_or(EMPTY)?)
    }

    fn marked(&mut self) -> Result<Vec<usize>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or(EMPTY)?;
        Ok(self.stack.split_off(mark))
    }

    fn fill(&mut self, items: Vec<usize>) -> Result<(), String> {
        let target = *self.stack.last().ok_or(EMPTY)?;
        match &mut self.nodes[target] {
            Node::List(own) | Node::Dict(own) => {
                own.extend(items);
                Ok(())
            }
            _ => Err("something is put into what is no list".to_owned()),
        }
    }

    fn remember(&mut self, slot: u64) -> Result<(), String> {
        self.memo.insert(slot, *self.stack.last().ok_or(EMPTY)?);
        Ok(())
    }

    fn recall(&mut self, slot: u64) -> Result<(), String> {
        self.stack.push(*self.memo.get(&slot).ok_or("something is recalled that is not there")?);
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len()).ok_or("it is truncated")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn line(&mut self) -> Result<String, String> {
        let n = self.bytes[self.at..].iter().position(|&b| b == b'\n').ok_or("it is truncated")?;
        let line = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn length(&mut self, n: usize) -> Result<usize, String> {
        let bytes = self.take(n)?;
        let length = bytes.iter().rev().fold(0_u64, |length, &b| length << 8 | u64::from(b));
        usize::try_from(length).map_err(|e| e.to_string())
    }

    /// `n` bytes, the lowest first.
    fn number(&mut self, n: usize, signed: bool) -> Result<(), String> {
        if n > 8 {
            return Err("a number is too large".to_owned());
        }
        let bytes = self.take(n)?;
        let mut value = bytes.iter().rev().fold(0_i64, |value, &b| value << 8 | i64::from(b));
        if signed && n < 8 && bytes.last().is_some_and(|b| *b >= 0x80) {
            value -= 1 << (8 * n);
        }
        self.int(value);
        Ok(())
    }

    fn text(&mut self, n: usize) -> Result<(), String> {
        let length = self.length(n)?;
        let bytes = self.take(length)?.to_vec();
        self.push(Node::Plain(Value::Bytes(bytes)));
        Ok(())
    }
}

/// An array of bytes, row by row.
fn array(shape: &Value, dtype: &Value, fortran: &Value, bytes: &Value) -> Result<Value, String> {
    let (Value::List(shape), Value::Bytes(bytes)) = (shape, bytes) else {
        return Err("an array has an unknown state".to_owned());
    };
    if !matches!(dtype, Value::Bytes(name) if name == b"u1") {
        return Err("an array is not of bytes (uint8)".to_owned());
    }
    if *fortran != Value::Int(0) {
        return Err("an array is stored column by column".to_owned());
    }
    let size = |n: &Value| if let Value::Int(n) = n { usize::try_from(*n).ok() } else { None };
    let shape: Option<Vec<usize>> = shape.iter().map(size).collect();
    let shape = shape.ok_or("an array has an impossible shape")?;
    if shape.iter().try_fold(1_usize, |all, &n| all.checked_mul(n)) != Some(bytes.len()) {
        return Err(format!("an array of shape {shape:?} has {} bytes", bytes.len()));
    }
    Ok(Value::Array(shape, bytes.clone()))
}

const EMPTY: &str = "it takes more from its stack than it put there";
