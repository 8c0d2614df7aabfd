//! Printing to standard output. A closed pipe is ignored, so that the program finishes its work;
//! any other error, such as a full disk, ends the program.

/// `println!` that ignores a closed pipe.
macro_rules! print_line {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        if let Err(error) = writeln!(std::io::stdout(), $($text)*)
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            eprintln!("error: standard output: {error}");
            std::process::exit(1);
        }
    }};
}
