//! The memory that this process may use: that of the machine, or less in a container.
//!
//! Linux reports the machine's memory in `/proc/meminfo`, also inside a container. The limits of
//! containers are those of control groups: the group of the process, found in `/proc/self/cgroup`,
//! and every group above it, as files below `/sys/fs/cgroup`. [Version 2] has `memory.max` and
//! `memory.high`, version 1 `memory.limit_in_bytes`. The memory in use includes the pages of files
//! that were read. Those not used lately (`inactive_file`) are counted as available, as `docker
//! stats` and the kubelet do: the system drops them before it runs out.
//!
//! [Version 2]: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory

use std::fs;
use std::path::{Component, Path, PathBuf};

/// An amount of memory, in bytes, and the part of it that is still available.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    total: usize,
    available: usize,
}

/// Returns whether at least an eighth of the memory of the machine, and of each control group,
/// would stay available after an allocation of `bytes`; true where the system does not report its
/// memory.
pub(crate) fn has_room(bytes: usize) -> bool {
    limits(Path::new("/")).iter().all(|limit| limit.available.saturating_sub(bytes) > limit.total / 8)
}

/// Returns the size of the largest allocation that can succeed, in bytes: the memory of the machine
/// or of the smallest control group, and the swap space. `None` where the system does not report
/// it.
pub(super) fn largest() -> Option<usize> {
    let total = limits(Path::new("/")).iter().map(|limit| limit.total).min()?;
    total.checked_add(entry(Path::new("/proc/meminfo"), "SwapTotal:").unwrap_or(0))
}

/// Returns the limits of the machine and of the control groups of this process, with `root` as the
/// root of the file system.
fn limits(root: &Path) -> Vec<Limit> {
    let info = root.join("proc/meminfo");
    let machine = || Some(Limit { total: entry(&info, "MemTotal:")?, available: entry(&info, "MemAvailable:")? });
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().flat_map(|line| group_limits(&root.join("sys/fs/cgroup"), line));
    machine().into_iter().chain(groups).collect()
}

/// Returns the limits of the group in a line `id:controllers:path` of `/proc/self/cgroup`, and of
/// the groups above it. Version 2 has no controllers in its line.
fn group_limits(mounted: &Path, line: &str) -> Vec<Limit> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    if controllers.split(',').any(|name| name == "memory") {
        let names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
        return groups(&mounted.join("memory"), path).iter().filter_map(|group| limit(group, names)).collect();
    }
    if !controllers.is_empty() {
        return Vec::new();
    }
    // Next to version 1, version 2 is in a folder of its own.
    let unified = Some(mounted.join("unified")).filter(|folder| folder.is_dir());
    let names = |max| [max, "memory.current", "inactive_file "];
    groups(&unified.unwrap_or_else(|| mounted.to_path_buf()), path)
        .iter()
        .flat_map(|group| ["memory.max", "memory.high"].map(|max| limit(group, names(max))))
        .flatten()
        .collect()
}

/// Returns the folders of a group and those above it, up to where the groups are mounted. Inside a
/// container the path may be that outside: then only the last folder exists, with the limits of the
/// container.
fn groups(mounted: &Path, path: &str) -> Vec<PathBuf> {
    let names = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
    let inner: PathBuf = names.collect();
    inner.ancestors().map(|above| mounted.join(above)).collect()
}

/// Returns the limit of a group by the names of its files of limit and use, and of the entry of
/// `memory.stat` for file pages that can be dropped. `None` without a limit (`max`).
fn limit(group: &Path, [max, used, droppable]: [&str; 3]) -> Option<Limit> {
    let number = |name| fs::read_to_string(group.join(name)).ok()?.trim().parse::<usize>().ok();
    let (total, used) = (number(max)?, number(used)?);
    let used = used.saturating_sub(entry(&group.join("memory.stat"), droppable).unwrap_or(0));
    Some(Limit { total, available: total.saturating_sub(used) })
}

/// Returns the number after `key` at the start of a line of a file, in bytes; the unit of the line
/// is bytes or `kB`.
fn entry(path: &Path, key: &str) -> Option<usize> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?.trim();
    match value.strip_suffix(" kB") {
        Some(value) => value.trim().parse::<usize>().ok()?.checked_mul(1 << 10),
        None => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root folder with a machine of 8000 kB, 6000 kB of them available, and the files given.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let machine =
            ("proc/meminfo", "MemTotal:        8000 kB\nMemFree:  1 kB\nMemAvailable:    6000 kB\nSwapTotal: 7 kB\n");
        for (path, content) in files.iter().chain([&machine]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> Vec<(usize, usize)> {
        let limits = limits(root(files).path());
        assert_eq!(limits[0], Limit { total: 8000 << 10, available: 6000 << 10 });
        limits[1..].iter().map(|limit| (limit.total, limit.available)).collect()
    }

    #[test]
    fn every_group_above_counts_in_version_2() {
        let limits = found(&[
            ("proc/self/cgroup", "0::/pods/a\n"),
            ("sys/fs/cgroup/pods/a/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/a/memory.high", "5000\n"),
            ("sys/fs/cgroup/pods/a/memory.current", "3000\n"),
            ("sys/fs/cgroup/pods/a/memory.stat", "anon 1000\nfile 1500\ninactive_file 1200\nactive_file 300\n"),
            ("sys/fs/cgroup/pods/memory.max", "7000\n"),
            ("sys/fs/cgroup/pods/memory.high", "max\n"),
            ("sys/fs/cgroup/pods/memory.current", "6500\n"),
            ("sys/fs/cgroup/memory.stat", "inactive_file 1\n"),
        ]);
        assert_eq!(limits, [(5000, 3200), (7000, 500)]);
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root() {
        let own = [
            ("sys/fs/cgroup/memory.max", "4096\n"),
            ("sys/fs/cgroup/memory.high", "max\n"),
            ("sys/fs/cgroup/memory.current", "5000\n"),
        ];
        for line in ["0::/\n", "0::/docker/0123\n", "0::/../other\n"] {
            assert_eq!(found(&[&own[..], &[("proc/self/cgroup", line)]].concat()), [(4096, 0)], "{line}");
        }
    }

    #[test]
    fn version_1_has_limits_in_the_folder_of_its_controller() {
        let groups = "12:cpuset:/x\n9:cpu,cpuacct:/x\n4:memory:/a:b\n1:name=systemd:/x\n0::/x\n";
        let limits = found(&[
            ("proc/self/cgroup", groups),
            ("sys/fs/cgroup/memory/a:b/memory.limit_in_bytes", "3000\n"),
            ("sys/fs/cgroup/memory/a:b/memory.usage_in_bytes", "2500\n"),
            ("sys/fs/cgroup/memory/a:b/memory.stat", "inactive_file 7\ntotal_inactive_file 500\n"),
            ("sys/fs/cgroup/unified/x/cgroup.procs", "1\n"),
        ]);
        assert_eq!(limits, [(3000, 1000)]);
        // Version 2 with the memory controller, next to version 1 with the others.
        let limits = found(&[
            ("proc/self/cgroup", "2:cpu:/x\n0::/x\n"),
            ("sys/fs/cgroup/unified/x/memory.max", "100\n"),
            ("sys/fs/cgroup/unified/x/memory.current", "10\n"),
        ]);
        assert_eq!(limits, [(100, 90)]);
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        assert_eq!(found(&[]), []);
        for line in ["", "0", "0:", "0::", "::::", "4:memory:"] {
            assert_eq!(found(&[("proc/self/cgroup", line)]), [], "{line}");
        }
        let odd = [("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.current", "1\n")];
        for max in ["", "-1", "1e9", "99999999999999999999999"] {
            assert_eq!(found(&[&odd[..], &[("sys/fs/cgroup/memory.max", max)]].concat()), [], "{max}");
        }
        assert!(limits(Path::new("absent")).is_empty());
    }

    #[test]
    fn there_is_room_for_little_and_not_for_all() {
        assert!(has_room(0));
        assert!(!cfg!(target_os = "linux") || !has_room(usize::MAX) && largest().is_some());
    }
}
