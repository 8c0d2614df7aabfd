//! Tests of what no kernel may do, whatever it is given: reach outside of its slices.
//!
//! | file | what |
//! |---|---|
//! | `refused` | every public entry with lengths and strides that no memory has |
//! | `sweep` | every public entry at sizes 0 to 69, at every instruction set |

mod refused;
mod sweep;
