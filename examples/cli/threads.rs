//! The flag `--threads`.

/// Runs `work` on a pool of `threads` threads (default: all processors).
pub(crate) fn on_threads(
    threads: Option<usize>,
    work: impl FnOnce() -> Result<(), String> + Send,
) -> Result<(), String> {
    match threads {
        None => work(),
        Some(threads) if !(1..=1024).contains(&threads) => {
            Err(format!("--threads: expected a number from 1 to 1024, found {threads}"))
        }
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string())?;
            pool.install(work)
        }
    }
}
