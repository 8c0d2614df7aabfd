//! Implementations of [`Isa`](super::Isa) as tables: a row for each method that is one expression.

/// Methods whose expression is unsafe, but sound for every argument, as the file says that uses this.
macro_rules! methods {
    ($($name:ident($($x:ident: $type:ty),*) $(-> $result:ty)? { $expression:expr })*) => {
        $(
            #[inline(always)]
            fn $name(self, $($x: $type),*) $(-> $result)? {
                unsafe { $expression }
            }
        )*
    };
}

/// Methods whose expression is safe.
macro_rules! safe_methods {
    ($($name:ident($($x:ident: $type:ty),*) $(-> $result:ty)? { $expression:expr })*) => {
        $(
            #[inline(always)]
            fn $name(self, $($x: $type),*) $(-> $result)? {
                $expression
            }
        )*
    };
}

/// Unsafe methods, whose pointers are valid by their contract.
macro_rules! pointer_methods {
    ($($name:ident($($x:ident: $type:ty),*) $(-> $result:ty)? { $expression:expr })*) => {
        $(
            #[inline(always)]
            unsafe fn $name(self, $($x: $type),*) $(-> $result)? {
                unsafe { $expression }
            }
        )*
    };
}
