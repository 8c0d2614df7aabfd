//! Implementations of [`Isa`](super::Isa) as tables with a row for each method.

/// Methods whose body is unsafe, but sound for every argument, as justified in the file that uses
/// this macro.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! methods {
    ($($name:ident($($x:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($x: $type),*) $(-> $result)? {
                unsafe { $body }
            }
        )*
    };
}

/// Methods whose body is safe.
macro_rules! safe_methods {
    ($($name:ident($($x:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($x: $type),*) $(-> $result)? {
                $body
            }
        )*
    };
}

/// Unsafe methods, whose pointers are valid by their contract.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! pointer_methods {
    ($($name:ident($($x:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            unsafe fn $name(self, $($x: $type),*) $(-> $result)? {
                unsafe { $body }
            }
        )*
    };
}
