//! The table of regressions: one row each, in the catalogue's order. The rows themselves are in `msr` (MSR interception
//! and disabled exits) and `systems` (everything beside it).

#[macro_use]
mod msr;
#[macro_use]
mod systems;

use super::{Origin, Row};

macro_rules! regressions {
    ($($name:ident = $id:literal {
        $about:literal, $origin:ident, upstream: $upstream:literal,
        when: $precondition:literal, wrong: $wrong:literal, right: $right:literal,
        kernels: $introduced:expr, $fixed_in:expr, still: $still:literal
    })*) => {
        /// A known (or easily made) bug of KVM that the model can be told to have. What each does is its [`Row`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Regression {
            $(#[doc = concat!($id, ": ", $about, ".")] $name,)*
        }

        impl Regression {
            /// Every regression, in table order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What is known about it.
            pub const fn row(self) -> &'static Row {
                &ROWS[self as usize]
            }
        }

        static ROWS: &[Row] = &[$(Row {
            regression: Regression::$name,
            id: $id,
            about: $about,
            origin: Origin::$origin,
            upstream: $upstream,
            precondition: $precondition,
            wrong: $wrong,
            right: $right,
            introduced: $introduced,
            fixed_in: $fixed_in,
            still_upstream: $still,
        }),*];
    };
}

msr_interception!(systems, regressions);
