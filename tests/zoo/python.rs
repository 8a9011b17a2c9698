//! PyTorch's side of the survey: `scripts/zoo.py serve`, asked line by line.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use zipit_tests::{binary, repository};

/// Requests after which a new process takes over: what PyTorch keeps of every network it traced adds up.
const REQUESTS: usize = 20;

/// A process that answers.
pub struct Python {
    child: Child,
    answers: BufReader<ChildStdout>,
    n_asked: usize,
}

impl Python {
    /// # Errors
    /// Where there is no PyTorch.
    pub fn start() -> Result<Self, String> {
        let bin = binary("import");
        let mut child = command()
            .args(["serve", "--bin"])
            .arg(bin.parent().ok_or("binaries lie in a folder")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let answers = BufReader::new(child.stdout.take().ok_or("stdout is a pipe")?);
        Ok(Self { child, answers, n_asked: 0 })
    }

    /// An answer to a request.
    ///
    /// # Errors
    /// What it complains about, or that it ended; then another one is there for the next request.
    pub fn ask(&mut self, request: &Value) -> Result<Value, String> {
        if self.n_asked == REQUESTS {
            *self = Self::start()?;
        }
        self.n_asked += 1;
        let mut answer = String::new();
        let asked = self.child.stdin.as_mut().map(|stdin| writeln!(stdin, "{request}"));
        let read = self.answers.read_line(&mut answer);
        if !matches!(asked, Some(Ok(()))) || !matches!(read, Ok(1..)) {
            *self = Self::start()?;
            return Err("PyTorch's process ended without an answer".to_owned());
        }
        let answer: Value = serde_json::from_str(&answer).map_err(|e| format!("no JSON: {e}"))?;
        match answer["error"].as_str() {
            Some(why) => Err(why.to_owned()),
            None => Ok(answer),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends with its input; that it has is all that matters here.
        let _ended = self.child.wait();
    }
}

/// `NAME whole|single`, one a line.
///
/// # Errors
/// What Python said.
pub fn listed() -> Result<String, String> {
    let ran = command().arg("list").output().map_err(|e| e.to_string())?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned())
}

fn command() -> Command {
    let mut command = Command::new(repository().join(".venv-python/bin/python"));
    command.arg(repository().join("scripts/zoo.py"));
    command
}
