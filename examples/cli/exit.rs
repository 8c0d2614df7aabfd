//! How an example ends: an error goes to the standard error in words, and the program says that it failed.

use std::fmt::Display;
use std::process::ExitCode;

/// The program's exit code; tells of an error.
pub(crate) fn exit(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
