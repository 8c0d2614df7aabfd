//! Printing for somebody who may have stopped reading: what the program does is worth finishing
//! anyway. What cannot be written for another reason, a full disk for example, ends the program.

/// `println!` that does not mind a closed pipe.
macro_rules! say {
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
