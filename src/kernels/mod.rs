//! Floor 1: slices in, slices out; the only home of `core::arch`.
