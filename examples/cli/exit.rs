//! The end of an example: an error message on the standard error, and the exit code.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Returns the program's exit code, and prints the error if there is one.
pub(crate) fn exit(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
