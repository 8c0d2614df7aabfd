//! Tests that no kernel accesses memory outside of its slices, whatever its arguments are.
//!
//! | file | content |
//! |---|---|
//! | `refused` | every public function with lengths and strides that exceed any memory |
//! | `sweep` | every public function at sizes 0 to 69, on every instruction set |

mod refused;
mod sweep;
