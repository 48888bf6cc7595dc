//! The built-in table as straight-line code: the rows of each class as constants that the compiler can see through.
//! A test compares it with the table of rows.

use super::exit::Exit;
use super::rows::ROWS;
use super::table::{Row, Table};
use super::view::View;
use crate::bitmap::Bitmaps;
use rootmode_arch::{Event, EventClass};

/// Row number `at` of the class whose rows are `first..end`; behind the last one a row that never applies.
const fn row(first: u8, end: u8, at: u8) -> Row {
    if first + at < end { ROWS[(first + at) as usize] } else { Row { enabled: false, ..ROWS[0] } }
}

/// Tries the rows of a class, four at most, in order.
macro_rules! classes {
    ($($class:ident)*) => {
        /// What [`Table::BUILT_IN`] answers.
        #[inline]
        pub(super) fn decide_built_in<B: Bitmaps + ?Sized>(view: &View<'_, B>, event: &Event) -> Option<Exit> {
            match event {
                $(Event::$class { .. } => {
                    const FIRST: u8 = Table::BUILT_IN.range(EventClass::$class).0;
                    const END: u8 = Table::BUILT_IN.range(EventClass::$class).1;
                    const { assert!(FIRST < END && END <= FIRST + 4, "one to four rows of a class") }
                    classes!(@rows view event 0 1 2 3);
                    None
                })*
                Event::Vmx { .. } => Table::BUILT_IN.decide(view, event),
                _ => None,
            }
        }
    };
    (@rows $view:ident $event:ident $($at:literal)*) => {
        $({
            const ROW: Row = row(FIRST, END, $at);
            if ROW.enabled && ROW.applies_inlined($view, $event) {
                return Some(Exit::inlined($view, $event, &ROW));
            }
        })*
    };
}

classes! {
    Exception ExternalInterrupt Nmi Init Sipi TripleFault TaskSwitch InterruptWindow NmiWindow PreemptionTimer MonitorTrap
    TprBelowThreshold BusLock SecondStage ApicAccess ApicWrite VirtualizedEoi PageModificationLogFull Cpuid Getsec Hlt Invd
    Wbinvd Invlpg Invpcid Rdpmc Rdtsc Rdtscp Rsm CrRead CrWrite Clts Lmsw DrRead DrWrite PortIo Rdmsr Wrmsr Mwait Monitor
    Pause DescriptorTable Rdrand Rdseed Xsetbv Xsaves Xrstors Umwait Tpause Encls Enclv Pconfig Enqcmd Loadiwkey Seam
}
