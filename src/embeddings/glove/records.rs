//! Co-occurrences outside of memory: temporary files, sorted runs and their merge, and the merged
//! records.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::atomic::process_id;
use crate::embeddings::training::lock;
use crate::{Error, Result};

/// A pair of words (`first << 32 | second`, plus 1) and its sum in units of 2^-32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) sum: u64,
}

impl Entry {
    pub(super) fn new(key: u64, sum: u64) -> Self {
        Entry { key: key + 1, sum }
    }
}

/// A pair of words and its co-occurrence.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Record {
    pub(super) first: u32,
    pub(super) second: u32,
    pub(super) x: f32,
}

impl Record {
    /// In a symmetric window, a word that co-occurs with itself counts on both sides.
    pub(super) fn new(entry: Entry, symmetric: bool) -> Self {
        let key = entry.key - 1;
        let (first, second) = ((key >> 32) as u32, key as u32);
        let times = if symmetric && first == second { 2.0 } else { 1.0 };
        Record { first, second, x: (entry.sum as f64 / 4_294_967_296.0 * times) as f32 }
    }
}

/// The folder of temporary files. The files are removed when they are closed, also if the process
/// is killed.
#[derive(Debug)]
pub(super) struct TempFolder(PathBuf);

static NEXT: AtomicU64 = AtomicU64::new(0);

impl TempFolder {
    /// Returns an error if `path` is not a folder.
    pub(super) fn new(path: &Path) -> Result<Self> {
        std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        Ok(TempFolder(path.into()))
    }

    /// Creates a file, and returns its path for error messages.
    fn file(&self) -> Result<(PathBuf, File)> {
        let mut options = File::options();
        #[cfg(windows)]
        // FILE_FLAG_DELETE_ON_CLOSE
        std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0400_0000);
        let (path, file) = loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.0.join(format!("loquat-glove-{}-{n}", process_id()));
            match options.read(true).write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::io(path, e)),
            }
        };
        // On Unix an open file needs no name.
        #[cfg(not(windows))]
        std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        Ok((path, file))
    }

    /// Writes sorted entries.
    pub(super) fn write_run(&self, entries: &[Entry]) -> Result<Run> {
        let mut run = RunWriter::new(self)?;
        run.write(entries)?;
        run.finish()
    }
}

/// A run that is being written in blocks of entries.
struct RunWriter {
    path: PathBuf,
    file: File,
}

impl RunWriter {
    fn new(folder: &TempFolder) -> Result<Self> {
        folder.file().map(|(path, file)| RunWriter { path, file })
    }

    fn write(&mut self, entries: &[Entry]) -> Result<()> {
        self.file.write_all(bytemuck::cast_slice(entries)).map_err(|e| Error::io(&self.path, e))
    }

    fn finish(mut self) -> Result<Run> {
        self.file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(&self.path, e))?;
        Ok(Run::File(self.path, self.file))
    }
}

/// Entries in ascending order of their keys.
pub(super) enum Run {
    Memory(Box<dyn Iterator<Item = Entry> + Send>),
    File(PathBuf, File),
}

/// A merge of runs: an iterator of entries in ascending order, each key once. A file is closed when
/// it has been read.
pub(super) struct Merge {
    heads: Vec<Head>,
}

struct Head {
    entry: Entry,
    rest: Rest,
}

enum Rest {
    Memory(Box<dyn Iterator<Item = Entry> + Send>),
    File(PathBuf, BufReader<File>),
}

impl Rest {
    fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Rest::Memory(entries) => Ok(entries.next()),
            Rest::File(path, file) => {
                let mut entry = Entry::default();
                match file.read_exact(bytemuck::bytes_of_mut(&mut entry)) {
                    Ok(()) => Ok(Some(entry)),
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                        *self = Rest::Memory(Box::new(std::iter::empty()));
                        Ok(None)
                    }
                    Err(e) => Err(Error::io(&*path, e)),
                }
            }
        }
    }
}

/// The largest number of files merged at once. More files are first merged into fewer.
const FAN_IN: usize = 64;

impl Merge {
    /// Merges runs, with about `memory` bytes of buffers for reading and writing.
    pub(super) fn new(mut runs: Vec<Run>, folder: &TempFolder, memory: usize) -> Result<Self> {
        let buffer = (memory / (FAN_IN + 1)).clamp(4 << 10, 256 << 10);
        let is_file = |run: &mut Run| matches!(run, Run::File(..));
        let mut files: Vec<Run> = runs.extract_if(.., is_file).collect();
        while files.len() > FAN_IN {
            // The smallest number that leaves few enough files, so that little is written twice.
            let some = (files.len() - FAN_IN + 1).min(FAN_IN);
            let mut merge = Self::of(files.drain(..some), buffer)?;
            let (mut whole, mut entries) = (RunWriter::new(folder)?, Vec::with_capacity(buffer / size_of::<Entry>()));
            loop {
                entries.extend(merge.by_ref().take(entries.capacity()).collect::<Result<Vec<_>>>()?);
                if entries.is_empty() {
                    break;
                }
                whole.write(&entries)?;
                entries.clear();
            }
            files.push(whole.finish()?);
        }
        Self::of(runs.into_iter().chain(files), buffer)
    }

    fn of(runs: impl Iterator<Item = Run>, buffer: usize) -> Result<Self> {
        let mut heads = Vec::new();
        for run in runs {
            let mut rest = match run {
                Run::Memory(entries) => Rest::Memory(entries),
                Run::File(path, file) => Rest::File(path, BufReader::with_capacity(buffer, file)),
            };
            if let Some(entry) = rest.next()? {
                heads.push(Head { entry, rest });
            }
        }
        Ok(Merge { heads })
    }
}

impl Iterator for Merge {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        // Runs are few, so comparing all of them costs less than a heap.
        let key = self.heads.iter().map(|head| head.entry.key).min()?;
        let (mut sum, mut i) = (0, 0);
        while i < self.heads.len() {
            let head = &mut self.heads[i];
            if head.entry.key == key {
                sum += head.entry.sum;
                match head.rest.next() {
                    Err(e) => {
                        self.heads.clear();
                        return Some(Err(e));
                    }
                    Ok(Some(entry)) => head.entry = entry,
                    Ok(None) => {
                        self.heads.swap_remove(i);
                        continue;
                    }
                }
            }
            i += 1;
        }
        Some(Ok(Entry { key, sum }))
    }
}

/// Records in memory, or in a temporary file if there are too many.
#[derive(Debug)]
pub(super) enum Records {
    Memory(Vec<Record>),
    /// Locked because a file has a single read position.
    File {
        path: PathBuf,
        file: Mutex<File>,
        len: u64,
    },
}

/// A writer of records in order.
pub(super) struct RecordsWriter<'f> {
    folder: &'f TempFolder,
    limit: usize,
    memory: Vec<Record>,
    file: Option<(PathBuf, BufWriter<File>, u64)>,
}

impl Records {
    /// Returns a writer that keeps up to `limit` bytes in memory and writes more to a file.
    pub(super) fn writer(folder: &TempFolder, limit: usize) -> RecordsWriter<'_> {
        RecordsWriter { folder, limit: limit / size_of::<Record>(), memory: Vec::new(), file: None }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Records::Memory(records) => records.len() as u64,
            Records::File { len, .. } => *len,
        }
    }

    /// The number of bytes in memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            Records::Memory(records) => records.capacity() * size_of::<Record>(),
            Records::File { .. } => 0,
        }
    }

    /// Calls `each` with all records in order, in blocks.
    pub(super) fn for_each(&mut self, mut each: impl FnMut(&[Record]) -> Result<()>) -> Result<()> {
        match self {
            Records::Memory(records) => each(records),
            Records::File { path, file, len } => {
                let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(&*path, e))?;
                let mut buffer = vec![Record::default(); 64 << 10];
                let mut left = *len as usize;
                while left > 0 {
                    let part = left.min(buffer.len());
                    let bytes = bytemuck::cast_slice_mut(&mut buffer[..part]);
                    file.read_exact(bytes).map_err(|e| Error::io(&*path, e))?;
                    each(&buffer[..part])?;
                    left -= part;
                }
                Ok(())
            }
        }
    }
}

impl RecordsWriter<'_> {
    pub(super) fn push(&mut self, record: Record) -> Result<()> {
        if let Some((path, file, len)) = &mut self.file {
            *len += 1;
            return file.write_all(bytemuck::bytes_of(&record)).map_err(|e| Error::io(&*path, e));
        }
        if self.memory.len() >= self.limit.max(1) {
            let (path, file) = self.folder.file()?;
            let mut file = BufWriter::with_capacity(1 << 20, file);
            let records = std::mem::take(&mut self.memory);
            let written = file.write_all(bytemuck::cast_slice(&records));
            written.map_err(|e| Error::io(&path, e))?;
            self.file = Some((path, file, records.len() as u64));
            return self.push(record);
        }
        if self.memory.len() == self.memory.capacity() {
            // Grows in small steps, for which the system moves pages rather than bytes: doubling
            // could exceed the limit, and so could the copy that growing may make.
            let more = self.memory.len().clamp(1 << 16, 1 << 20).min(self.limit.max(1) - self.memory.len());
            self.memory.reserve_exact(more);
        }
        self.memory.push(record);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Records> {
        match self.file {
            None => Ok(Records::Memory(self.memory)),
            Some((path, file, len)) => {
                let file = file.into_inner().map_err(|e| Error::io(&path, e.into_error()))?;
                Ok(Records::File { path, file: Mutex::new(file), len })
            }
        }
    }
}

/// Records in random order: distributed at random over parts that are small enough to be shuffled
/// in a cache.
#[derive(Debug)]
pub(super) struct Shuffled {
    records: Records,
    /// The start of each part, in records, and the end of the last.
    starts: Vec<u64>,
}

/// The approximate number of records per part.
pub(super) const PART: u64 = 32 << 10;

impl Shuffled {
    pub(super) fn new(source: &mut Records, folder: &TempFolder, seed: u64, limit: usize) -> Result<Self> {
        let n = source.len();
        let parts = n.div_ceil(PART).clamp(1, 1 << 16) as u32;
        let rng = || crate::embeddings::training::sampling::FastRng::new(seed, u64::MAX, 1);
        // The random parts are drawn twice: the first time to count their sizes.
        let mut starts = vec![0u64; parts as usize + 1];
        let mut draw = rng();
        for _ in 0..n {
            starts[draw.below(parts) as usize + 1] += 1;
        }
        for i in 0..parts as usize {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut draw = rng();
        let records = if n as usize <= limit / size_of::<Record>() {
            let mut all = vec![Record::default(); n as usize];
            source.for_each(|records| {
                for record in records {
                    let part = draw.below(parts) as usize;
                    all[next[part] as usize] = *record;
                    next[part] += 1;
                }
                Ok(())
            })?;
            Records::Memory(all)
        } else {
            let (path, mut file) = folder.file()?;
            // Each part collects some records before they are written.
            let room = 1 << (limit / size_of::<Record>() / parts as usize).clamp(16, 4096).ilog2();
            let mut waiting: Vec<Vec<Record>> = vec![Vec::new(); parts as usize];
            let mut write = |part: usize, waiting: &mut Vec<Record>, next: &mut [u64]| {
                let at = SeekFrom::Start(next[part] * size_of::<Record>() as u64);
                next[part] += waiting.len() as u64;
                let written = file.seek(at).and_then(|_| file.write_all(bytemuck::cast_slice(waiting)));
                waiting.clear();
                written.map_err(|e| Error::io(&path, e))
            };
            source.for_each(|records| {
                for record in records {
                    let part = draw.below(parts) as usize;
                    waiting[part].push(*record);
                    if waiting[part].len() == room {
                        write(part, &mut waiting[part], &mut next)?;
                    }
                }
                Ok(())
            })?;
            for (part, waiting) in waiting.iter_mut().enumerate() {
                write(part, waiting, &mut next)?;
            }
            Records::File { path, file: Mutex::new(file), len: n }
        };
        Ok(Shuffled { records, starts })
    }

    pub(super) fn parts(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn len(&self) -> u64 {
        self.records.len()
    }

    /// Reads a part, in the order in which it was written.
    pub(super) fn part(&self, part: usize, out: &mut Vec<Record>) -> Result<()> {
        let (start, end) = (self.starts[part], self.starts[part + 1]);
        out.clear();
        match &self.records {
            Records::Memory(records) => out.extend_from_slice(&records[start as usize..end as usize]),
            Records::File { path, file, .. } => {
                out.resize((end - start) as usize, Record::default());
                let mut file = lock(file);
                let at = SeekFrom::Start(start * size_of::<Record>() as u64);
                let read = file.seek(at).and_then(|_| file.read_exact(bytemuck::cast_slice_mut(out)));
                read.map_err(|e| Error::io(path, e))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_merge_and_records_shuffle_in_memory_and_in_files() {
        let parent = tempfile::tempdir().unwrap();
        for limit in [1 << 30, 1000] {
            let folder = TempFolder::new(parent.path()).unwrap();
            let entries = |step: u64| (0..60_000).map(|i| Entry::new(i * step, i + 1)).collect::<Vec<_>>();
            let memory = |entries: Vec<Entry>| Run::Memory(Box::new(entries.into_iter()));
            let runs = vec![folder.write_run(&entries(2)).unwrap(), memory(entries(3)), memory(vec![])];
            let merged: Vec<Entry> = Merge::new(runs, &folder, limit).unwrap().map(Result::unwrap).collect();
            assert!(merged.is_sorted_by(|a, b| a.key < b.key));
            assert_eq!(merged.len(), 100_000);
            assert_eq!(merged.iter().find(|e| e.key == 61).unwrap().sum, 31 + 21);
            let mut writer = Records::writer(&folder, limit);
            for entry in &merged {
                writer.push(Record::new(*entry, false)).unwrap();
            }
            let mut records = writer.finish().unwrap();
            assert_eq!(matches!(records, Records::File { .. }), limit == 1000);
            let shuffled = Shuffled::new(&mut records, &folder, 7, limit).unwrap();
            let (mut all, mut part) = (Vec::new(), Vec::new());
            for p in 0..shuffled.parts() {
                shuffled.part(p, &mut part).unwrap();
                all.extend(part.iter().map(|r| u64::from(r.second)));
            }
            assert!(!all.is_sorted());
            all.sort();
            assert!(all.iter().zip(&merged).all(|(a, e)| *a == e.key - 1));
            #[cfg(unix)]
            assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "the file has no name");
            drop((records, shuffled));
            assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn many_runs_merge_through_few_files() {
        let parent = tempfile::tempdir().unwrap();
        let folder = TempFolder::new(parent.path()).unwrap();
        let n = 3 * FAN_IN as u64;
        let run = |i: u64| folder.write_run(&(0..500).map(|k| Entry::new(k * (i % 7 + 1), 1)).collect::<Vec<_>>());
        let merge = Merge::new((0..n).map(|i| run(i).unwrap()).collect(), &folder, 1 << 20).unwrap();
        assert!(merge.heads.len() <= FAN_IN, "{} files", merge.heads.len());
        let merged: Vec<Entry> = merge.map(Result::unwrap).collect();
        assert!(merged.is_sorted_by(|a, b| a.key < b.key));
        assert_eq!(merged.iter().map(|e| e.sum).sum::<u64>(), n * 500);
        assert_eq!(merged[0], Entry::new(0, n));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "files that were read are removed");
    }
}
