//! A temporary folder and the binaries run in it. A failure shows command, stdout and stderr.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A folder for one test.
#[derive(Debug)]
pub struct Workplace {
    folder: TempDir,
}

/// What a finished command said.
#[derive(Debug)]
pub struct Ran {
    command: String,
    output: Output,
}

/// The repository's root.
///
/// # Panics
/// Never: this crate is a folder of it.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// A stage's binary, beside this test's own.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let path = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join(name);
    assert!(path.exists(), "{} is not there: run `make build` first", path.display());
    path
}

impl Default for Workplace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workplace {
    /// An empty folder.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `binary ARGS…`, words of `args` split at spaces, to be run in the folder.
    #[must_use]
    pub fn command(&self, name: &str, args: &str) -> Command {
        let mut command = Command::new(binary(name));
        command
            .args(args.split_whitespace())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1");
        command
    }

    /// Runs a stage to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, name: &str, args: &str) -> Ran {
        let output = self.command(name, args).output().expect("the binary starts");
        Ran { command: format!("{name} {args}"), output }
    }

    /// Runs a stage that must succeed; returns its stdout.
    #[expect(clippy::must_use_candidate, reason = "most stages are run for their files")]
    pub fn ok(&self, name: &str, args: &str) -> String {
        self.run(name, args).code(0).stdout()
    }

    /// Runs a stage that may fail; its stdout.
    ///
    /// # Errors
    /// The stage and what it said, where it did not end well.
    pub fn attempt(&self, name: &str, args: &str) -> Result<String, String> {
        let ran = self.run(name, args);
        if ran.output.status.success() { Ok(ran.stdout()) } else { Err(format!("{name}: {}", ran.stderr().trim())) }
    }

    /// Runs a stage that must fail with exit code 1 and say all of `words`.
    ///
    /// # Panics
    /// When it does otherwise.
    pub fn fails(&self, name: &str, args: &str, words: &[&str]) {
        let ran = self.run(name, args);
        if let Err(why) = ran.refusal(1, words) {
            panic!("{why}: {ran}");
        }
    }

    /// The bytes of a file in the folder.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

impl Ran {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// On another one.
    #[must_use]
    pub fn code(self, wanted: i32) -> Self {
        assert_eq!(self.output.status.code(), Some(wanted), "exit code of {self}");
        self
    }

    /// Asserts that stderr holds all of `words` and no marks of a crash.
    ///
    /// # Panics
    /// When it does not.
    pub fn says(&self, words: &[&str]) {
        if let Err(why) = self.check_words(words) {
            panic!("{why}: {self}");
        }
    }

    /// Checks that it ended with exit code `wanted`, an error message holding all of `words`, and nothing on stdout.
    ///
    /// # Errors
    /// What is otherwise.
    pub fn refusal(&self, wanted: i32, words: &[&str]) -> Result<(), String> {
        match self.output.status.code() {
            Some(code) if code == wanted => {}
            other => return Err(format!("exit code {other:?} instead of {wanted}")),
        }
        if !self.output.stdout.is_empty() {
            return Err("stdout is for results".to_owned());
        }
        if !self.stderr().contains("error: ") {
            return Err("stderr has no error message".to_owned());
        }
        self.check_words(words)
    }

    fn check_words(&self, words: &[&str]) -> Result<(), String> {
        let text = self.stderr();
        if text.contains("panicked") || text.contains("RUST_BACKTRACE") {
            return Err("a crash".to_owned());
        }
        match words.iter().find(|word| !text.contains(**word)) {
            Some(word) => Err(format!("stderr does not say `{word}`")),
            None => Ok(()),
        }
    }

    /// What it printed as its result.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it said beside.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n$ {}\n--- stdout\n{}--- stderr\n{}", self.command, self.stdout(), self.stderr())
    }
}
