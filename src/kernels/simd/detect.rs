//! Detection of the instruction set: queried from the processor once, possibly lowered by the user,
//! never raised.

use std::cell::Cell;
use std::sync::OnceLock;

/// An instruction set, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The compiler's target (SSE2 on x86-64). Multiply–add rounds twice.
    Portable,
    /// 128-bit Arm vectors with fused multiply–add.
    Neon,
    /// 256-bit x86 vectors: AVX2, FMA and F16C.
    Avx2,
    /// 512-bit x86 vectors: AVX-512 F, BW, VL and DQ, and all of [`Level::Avx2`].
    Avx512,
}

impl Level {
    /// Returns the name in `LOQUAT_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
}

/// Instructions beyond a [`Level`] that some kernels use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// AVX512-VNNI: `vpdpbusd` on 512 bits.
    pub avx512_vnni: bool,
    /// AVX512-BF16: `vdpbf16ps`.
    pub avx512_bf16: bool,
    /// AVX-VNNI: `vpdpbusd` on 256 bits without AVX-512.
    pub avx_vnni: bool,
    /// AMX tiles of bf16, with the system's permission.
    pub amx_bf16: bool,
    /// AMX tiles of int8, with the system's permission.
    pub amx_int8: bool,
    /// Arm `sdot` and `udot`.
    pub dotprod: bool,
    /// Arm `smmla` and similar instructions.
    pub i8mm: bool,
    /// Arm `bfmmla` and `bfdot`.
    pub neon_bf16: bool,
}

impl Features {
    /// Returns the features that both `self` and `other` have.
    pub fn and(self, other: Features) -> Features {
        Features {
            avx512_vnni: self.avx512_vnni && other.avx512_vnni,
            avx512_bf16: self.avx512_bf16 && other.avx512_bf16,
            avx_vnni: self.avx_vnni && other.avx_vnni,
            amx_bf16: self.amx_bf16 && other.amx_bf16,
            amx_int8: self.amx_int8 && other.amx_int8,
            dotprod: self.dotprod && other.dotprod,
            i8mm: self.i8mm && other.i8mm,
            neon_bf16: self.neon_bf16 && other.neon_bf16,
        }
    }

    /// Returns the features that remain when the instruction set is lowered to `level`.
    fn at(self, level: Level) -> Features {
        let avx512 = level == Level::Avx512;
        let neon = level == Level::Neon;
        self.and(Features {
            avx512_vnni: avx512,
            avx512_bf16: avx512,
            avx_vnni: level >= Level::Avx2,
            amx_bf16: avx512,
            amx_int8: avx512,
            dotprod: neon,
            i8mm: neon,
            neon_bf16: neon,
        })
    }
}

/// The instructions that this thread may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    level: Level,
    features: Features,
}

impl Setting {
    fn and(self, other: Setting) -> Setting {
        let level = self.level.min(other.level);
        Setting { level, features: self.features.and(other.features).at(level) }
    }
}

/// The instructions that the machine has and `LOQUAT_ISA` allows, and an error if that variable is
/// invalid.
struct Detected {
    setting: Setting,
    fault: Option<String>,
}

fn detected() -> &'static Detected {
    static DETECTED: OnceLock<Detected> = OnceLock::new();
    DETECTED.get_or_init(|| {
        let wanted = std::env::var_os("LOQUAT_ISA").unwrap_or_default();
        let wanted = wanted.to_string_lossy();
        // Permission to use AMX is requested only if it may be used.
        let machine = machine(!matches!(wanted.as_ref(), "portable" | "neon" | "avx2" | "avx512"));
        lowered_to(&wanted, machine).unwrap_or_else(|fault| Detected { setting: machine, fault: Some(fault) })
    })
}

/// Returns the machine's instructions that `LOQUAT_ISA` allows, or the list of values that are
/// valid.
fn lowered_to(wanted: &str, machine: Setting) -> Result<Detected, String> {
    let has_amx = machine.features.amx_bf16 || machine.features.amx_int8;
    let level = match wanted {
        "" => machine.level,
        "amx" if has_amx => machine.level,
        "portable" => Level::Portable,
        "neon" if machine.level == Level::Neon => Level::Neon,
        "avx2" if machine.level >= Level::Avx2 => Level::Avx2,
        "avx512" if machine.level >= Level::Avx512 => Level::Avx512,
        _ => {
            let levels = [Level::Neon, Level::Avx2, Level::Avx512].into_iter();
            let here = levels.filter(|&l| l <= machine.level && (l == Level::Neon) == (machine.level == Level::Neon));
            let amx = if has_amx { ", amx" } else { "" };
            let names: String = here.map(|level| format!(", {}", level.name())).collect();
            return Err(format!("an instruction set that this processor has: portable{names}{amx}"));
        }
    };
    Ok(Detected { setting: Setting { level, features: machine.features.at(level) }, fault: None })
}

/// Checks the environment variable `LOQUAT_ISA`; called when layers, models and trainers of word
/// vectors are created.
///
/// Before this call, and after an error, everything runs as if the variable were not set.
///
/// # Errors
///
/// If the variable does not name an instruction set, or names one that the processor or the
/// operating system does not support.
pub fn check_environment() -> crate::Result<()> {
    match &detected().fault {
        None => Ok(()),
        Some(expected) => Err(crate::Error::Argument {
            name: "environment variable LOQUAT_ISA".to_string(),
            expected: expected.clone(),
            found: format!("`{}`", std::env::var_os("LOQUAT_ISA").unwrap_or_default().to_string_lossy()),
        }),
    }
}

#[cfg(target_arch = "x86_64")]
fn machine(want_amx: bool) -> Setting {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("f16c");
    let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
    let level = match (avx512, avx2) {
        (true, _) => Level::Avx512,
        (false, true) => Level::Avx2,
        (false, false) => Level::Portable,
    };
    let (amx_bf16, amx_int8) = if want_amx && avx512 { amx() } else { (false, false) };
    let features = Features {
        avx512_vnni: has!("avx512vnni"),
        avx512_bf16: has!("avx512bf16"),
        avx_vnni: has!("avxvnni"),
        amx_bf16,
        amx_int8,
        ..Features::default()
    };
    Setting { level, features: features.at(level) }
}

#[cfg(target_arch = "aarch64")]
fn machine(_want_amx: bool) -> Setting {
    use std::arch::is_aarch64_feature_detected as has;
    let level = if has!("neon") { Level::Neon } else { Level::Portable };
    let features =
        Features { dotprod: has!("dotprod"), i8mm: has!("i8mm"), neon_bf16: has!("bf16"), ..Features::default() };
    Setting { level, features: features.at(level) }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn machine(_want_amx: bool) -> Setting {
    Setting { level: Level::Portable, features: Features::default() }
}

/// Returns whether AMX tiles of (bf16, int8) may be used: the processor has them, the system saves
/// them, and it granted them to this process.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx() -> (bool, bool) {
    use std::arch::x86_64::{__cpuid, __cpuid_count, __get_cpuid_max, _xgetbv};
    #[target_feature(enable = "xsave")]
    fn saved_states() -> u64 {
        // SAFETY: the register is readable where the system has turned `xsave` on, which the caller
        // checked.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: every x86-64 processor has `cpuid`; leaf 7 is asked for only where it exists.
    #[allow(unused_unsafe)]
    let (osxsave, edx) = unsafe {
        if __get_cpuid_max(0).0 < 7 {
            return (false, false);
        }
        (__cpuid(1).ecx & (1 << 27) != 0, __cpuid_count(7, 0).edx)
    };
    let (bf16, tile, int8) = (edx & (1 << 22) != 0, edx & (1 << 24) != 0, edx & (1 << 25) != 0);
    // Bits 17 and 18: tile configuration and tile data.
    const TILE_STATES: u64 = 0b11 << 17;
    // SAFETY: the system has turned `xsave` on.
    if !tile || !osxsave || unsafe { saved_states() } & TILE_STATES != TILE_STATES {
        return (false, false);
    }
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let mut answer = ARCH_PRCTL;
    // SAFETY: the call reads no memory of ours and writes none; Linux clobbers only rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    let granted = answer == 0;
    (bf16 && granted, int8 && granted)
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx() -> (bool, bool) {
    (false, false)
}

thread_local! {
    static LOWERED: Cell<Option<Setting>> = const { Cell::new(None) };
}

/// Returns the instructions that this thread may use, for `parallel`, which passes them to the
/// workers.
pub(crate) fn setting() -> Setting {
    LOWERED.get().unwrap_or_else(|| detected().setting)
}

/// Runs `f` with at most the given instructions.
pub(crate) fn with_setting<R>(wanted: Setting, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Setting>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LOWERED.set(self.0);
        }
    }
    let _restore = Restore(LOWERED.replace(Some(setting().and(wanted))));
    f()
}

/// Returns the instruction set in use on this thread.
#[inline]
pub fn level() -> Level {
    setting().level
}

/// Returns the additional instructions in use on this thread.
#[inline]
pub fn features() -> Features {
    setting().features
}

/// Returns the best instruction set that the machine and `LOQUAT_ISA` allow, regardless of how far
/// this thread was lowered.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
pub(super) fn ceiling() -> Level {
    detected().setting.level
}

/// Runs `f` with the instruction set lowered to `level`, on this thread and on its workers.
///
/// A level that the machine does not have, or that is above the current one, has no effect.
pub fn with_level<R>(level: Level, f: impl FnOnce() -> R) -> R {
    let now = setting();
    let level = if level == Level::Neon && now.level != Level::Neon { Level::Portable } else { level };
    with_setting(Setting { level, ..now }, f)
}

/// Runs `f` with only those of the current features that `kept` contains.
pub fn with_features<R>(kept: Features, f: impl FnOnce() -> R) -> R {
    with_setting(Setting { features: kept, ..setting() }, f)
}

/// Runs `f` once at each instruction set from [`Level::Portable`] up to the current one, for the
/// tests of all kernels.
///
/// # Panics
///
/// If `LOQUAT_EXPECT_ISA` (names of levels, or `amx`, separated by commas) lists one that was
/// skipped: set it in continuous integration where the machine is known.
pub fn for_each_level(mut f: impl FnMut(Level)) {
    let best = level();
    let ladder: &[Level] = match best {
        Level::Neon => &[Level::Portable, Level::Neon],
        _ => &[Level::Portable, Level::Avx2, Level::Avx512],
    };
    let run: Vec<Level> = ladder.iter().copied().filter(|&level| level <= best).collect();
    if let Ok(expected) = std::env::var("LOQUAT_EXPECT_ISA") {
        for name in expected.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let has = match name {
                "amx" => features().amx_bf16 && features().amx_int8,
                _ => run.iter().any(|level| level.name() == name),
            };
            assert!(has, "`{name}` was expected but this machine lacks it");
        }
    }
    for level in run {
        with_level(level, || f(level));
    }
}

/// Runs `f` at each level ([`for_each_level`]) with all additional instructions of the level,
/// without each of them, and without all of them, so that every kernel of the products is tested.
#[cfg(test)]
pub(crate) fn for_each_kernel(f: impl Fn()) {
    for_each_level(|_| {
        f();
        let all = features();
        let without: [fn(&mut Features); 5] = [
            |f| f.avx512_vnni = false,
            |f| f.avx512_bf16 = false,
            |f| f.amx_bf16 = false,
            |f| f.amx_int8 = false,
            |f| *f = Features::default(),
        ];
        let mut seen = vec![all];
        for remove in without {
            let mut kept = all;
            remove(&mut kept);
            if !seen.contains(&kept) {
                seen.push(kept);
                with_features(kept, &f);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowering_is_never_raised_and_ends_with_the_closure() {
        let best = level();
        with_level(Level::Portable, || {
            assert_eq!(level(), Level::Portable);
            assert_eq!(features(), Features::default());
            with_level(best, || assert_eq!(level(), Level::Portable));
        });
        assert_eq!(level(), best);
    }

    #[test]
    fn lowering_ends_with_a_panic_too() {
        let best = level();
        let _ = std::panic::catch_unwind(|| with_level(Level::Portable, || panic!("on purpose")));
        assert_eq!(level(), best);
    }

    #[test]
    fn another_thread_keeps_its_own_level() {
        let best = level();
        with_level(Level::Portable, || {
            let other = std::thread::spawn(level).join().expect("the thread only reads");
            assert_eq!(other, best);
        });
    }

    #[test]
    fn a_variable_that_names_nothing_here_is_a_fault() {
        let plain = Setting { level: Level::Avx2, features: Features::default() };
        let tiles = Setting { level: Level::Avx512, features: Features { amx_bf16: true, ..Features::default() } };
        let neon = Setting { level: Level::Neon, features: Features::default() };
        let level = |wanted, machine| lowered_to(wanted, machine).map(|found| found.setting.level);
        assert_eq!(level("", plain), Ok(Level::Avx2));
        assert_eq!(level("amx", tiles), Ok(Level::Avx512));
        assert_eq!(level("avx2", tiles), Ok(Level::Avx2));
        assert_eq!(level("portable", neon), Ok(Level::Portable));
        let set = "an instruction set that this processor has: portable";
        assert_eq!(level("amx", plain), Err(format!("{set}, avx2")));
        assert_eq!(level("avx521", tiles), Err(format!("{set}, avx2, avx512, amx")));
        assert_eq!(level("avx512", plain), Err(format!("{set}, avx2")));
        assert_eq!(level("neon", plain), Err(format!("{set}, avx2")));
        assert_eq!(level("avx2", neon), Err(format!("{set}, neon")));
    }

    #[test]
    fn features_are_lowered_with_the_level() {
        let all = Features {
            avx512_vnni: true,
            avx512_bf16: true,
            avx_vnni: true,
            amx_bf16: true,
            amx_int8: true,
            dotprod: true,
            i8mm: true,
            neon_bf16: true,
        };
        assert_eq!(all.at(Level::Portable), Features::default());
        assert_eq!(all.at(Level::Avx2), Features { avx_vnni: true, ..Features::default() });
        assert!(all.at(Level::Avx512).amx_int8 && !all.at(Level::Avx512).dotprod);
        assert!(all.at(Level::Neon).i8mm && !all.at(Level::Neon).avx_vnni);
        with_features(Features::default(), || assert_eq!(features(), Features::default()));
    }
}
