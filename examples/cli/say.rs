//! Printing for somebody who may have stopped reading: what the program does is worth finishing anyway.

/// `println!` that does not mind a closed pipe.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
