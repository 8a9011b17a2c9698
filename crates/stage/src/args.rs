//! Flags that every binary has, and where a value came from.

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command};

/// Arguments under these headings say how to run, not what to compute: they are not part of a file's provenance.
pub const EXECUTION: &str = "Execution";
/// See [`EXECUTION`].
pub const OUTPUT: &str = "Output";

/// The flags every binary has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = EXECUTION)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Common {
    /// Worker threads [default: `SLURM_CPUS_PER_TASK`, else the processors this process may use]; never changes a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Make the output again even if it is up to date
    #[arg(long)]
    pub force: bool,
    /// Check the inputs and say what would be done, then stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print every setting with its value and origin, then stop
    #[arg(long)]
    pub print_config: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
    /// More detail on stderr; twice for everything (`RUST_LOG` wins)
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
}

/// A binary's arguments.
pub trait HasCommon {
    /// The shared part.
    fn common(&self) -> &Common;
}

/// Lets every long option be set by `ZIPIT_<NAME>` too.
#[must_use]
pub fn with_environment(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_long() {
        Some(long) if !matches!(long, "help" | "version") => {
            let name = format!("ZIPIT_{}", long.to_uppercase().replace('-', "_"));
            arg.env(name).hide_env(true)
        }
        _ => arg,
    })
}

/// Every argument as (name, value, origin), in the order of the help text.
#[must_use]
pub fn origins(command: &Command, matches: &ArgMatches) -> Vec<[String; 3]> {
    command
        .get_arguments()
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version" | "print_config"))
        .map(|arg| {
            let id = arg.get_id().as_str();
            let name = arg.get_long().map_or_else(|| id.to_uppercase(), |long| format!("--{long}"));
            let value = matches.get_raw(id).map_or_else(
                || "-".to_owned(),
                |values| values.map(|v| v.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
            );
            let origin = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "command line",
                Some(ValueSource::EnvVariable) => "environment",
                Some(_) => "default",
                None => "not set: from the input files",
            };
            [name, value, origin.to_owned()]
        })
        .collect()
}
