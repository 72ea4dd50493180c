//! Enums that mirror one of the core's, variant by variant.

/// Converts an enum of plain variants into one with the same variants.
///
/// An enum that may grow takes a fallback for what it has grown by: the one that promises least. The core's test of the
/// bindings notices such a variant.
macro_rules! mirror {
    ($from:path => $to:path { $($variant:ident),+ $(,)? }) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                use $from as From;
                match value {
                    $(From::$variant => Self::$variant,)+
                }
            }
        }
    };
    ($from:path => $to:path { $($variant:ident),+; else $fallback:ident }) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                use $from as From;
                match value {
                    $(From::$variant => Self::$variant,)+
                    _ => Self::$fallback,
                }
            }
        }
    };
}

pub(crate) use mirror;
