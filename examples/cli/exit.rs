//! How an example ends: an error goes to the standard error in words, and the program says that it failed.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// The program's exit code; tells of an error.
pub(crate) fn exit(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
