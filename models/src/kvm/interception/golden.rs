//! The pass-through tables, typed a second time from the catalogue and compared row by row.

use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::{Access, InterceptMap, Row};
use crate::kvm::{Regressions, Tables};

/// "first last accesses condition since", one line a row.
const SVM: &str = "
c0000081 c0000081 RW Always V6_12
174 174 RW Always V6_12
c0000100 c0000102 RW Always V6_12
c0000082 c0000084 RW Always V6_12
175 175 RW GuestNotIntel V6_12
176 176 RW GuestNotIntel V6_12
48 48 RW SpecCtrlOnSvm V6_12
49 49 W PredCmd V6_12
10b 10b W FlushCmd V6_12
1db 1de RW LastBranch V6_12
1d9 1d9 RW LastBranchOfSevEs V6_12
e7 e8 R AperfMperf V6_17
6a0 6a0 RW ShadowStack V6_18
6a2 6a2 RW ShadowStack V6_18
6a4 6a7 RW ShadowStack V6_18
c0010130 c0010130 RW SevEs V6_12
c0000080 c0000080 RW SevEs V6_12
277 277 RW SevEs V6_12
c0000103 c0000103 RW SevEsTscAux V6_12
da0 da0 RW SevEsXss V6_12
c0010134 c0010134 R SecureTsc V6_18
c0010004 c0010004 RW Counter(0) Later
c0010005 c0010005 RW Counter(1) Later
c0010006 c0010006 RW Counter(2) Later
c0010007 c0010007 RW Counter(3) Later
c0010201 c0010201 RW CoreCounter(0) Later
c0010203 c0010203 RW CoreCounter(1) Later
c0010205 c0010205 RW CoreCounter(2) Later
c0010207 c0010207 RW CoreCounter(3) Later
c0010209 c0010209 RW CoreCounter(4) Later
c001020b c001020b RW CoreCounter(5) Later
c0000300 c0000303 RW GlobalCounters Later
802 803 RW X2Avic V6_12
808 810 RW X2Avic V6_12
818 818 RW X2Avic V6_12
820 820 RW X2Avic V6_12
828 828 RW X2Avic V6_12
830 831 RW X2Avic V6_12
832 832 RW NeverLvtTimer V6_12
833 839 RW X2Avic V6_12
83e 83e RW X2Avic V6_12
";

const VMX: &str = "
10 10 R Always V6_12
c0000100 c0000102 RW Always V6_12
174 176 RW Always V6_12
660 660 R CStates V6_12
3fc 3fe R CStates V6_12
e7 e8 R AperfMperf V6_17
560 561 RW ProcessorTrace V6_12
571 572 RW ProcessorTrace V6_12
580 581 RW TraceAddress(0) V6_12
582 583 RW TraceAddress(1) V6_12
584 585 RW TraceAddress(2) V6_12
586 587 RW TraceAddress(3) V6_12
1c4 1c4 RW XfdWritten V6_12
1c5 1c5 R Xfd V6_12
48 48 RW SpecCtrlOnVmx V6_12
49 49 W PredCmd V6_12
10b 10b W FlushCmd V6_12
6a0 6a0 RW Cet V6_18
6a2 6a2 RW Cet V6_18
6a4 6a7 RW ShadowStack V6_18
c1 c1 RW Counter(0) Later
c2 c2 RW Counter(1) Later
c3 c3 RW Counter(2) Later
c4 c4 RW Counter(3) Later
4c1 4c1 RW FullWidthCounter(0) Later
4c2 4c2 RW FullWidthCounter(1) Later
4c3 4c3 RW FullWidthCounter(2) Later
4c4 4c4 RW FullWidthCounter(3) Later
309 309 RW FixedCounter(0) Later
30a 30a RW FixedCounter(1) Later
30b 30b RW FixedCounter(2) Later
38e 390 RW GlobalCounters Later
802 803 R Apicv V6_12
808 808 RW VirtualX2apic V6_12
80a 80a R Apicv V6_12
80b 80b W Apicv V6_12
80d 80d R Apicv V6_12
80f 828 R Apicv V6_12
830 830 R Apicv V6_12
830 830 W VirtualIpi V6_12
832 838 R Apicv V6_12
83e 83e R Apicv V6_12
83f 83f W Apicv V6_12
";

fn text(row: &Row) -> String {
    let accesses: String =
        row.accesses.iter().map(|access| if access == Access::Read { 'R' } else { 'W' }).collect();
    format!("{:x} {:x} {accesses} {:?} {:?}", row.first, row.last, row.when, row.since)
}

#[test]
fn the_svm_table_is_the_catalogues() {
    assert_eq!(
        super::svm::TABLE.iter().map(text).collect::<Vec<_>>(),
        SVM.trim().lines().collect::<Vec<_>>()
    );
}

#[test]
fn the_vmx_table_is_the_catalogues() {
    assert_eq!(
        super::vmx::TABLE.iter().map(text).collect::<Vec<_>>(),
        VMX.trim().lines().collect::<Vec<_>>()
    );
}

fn rows_are_in_range_and_disjoint<M: InterceptMap>() {
    let mut seen = Vec::new();
    for row in M::rows(Tables::KVM) {
        for (msr, access) in row.msrs().flat_map(|msr| row.accesses.iter().map(move |access| (msr, access))) {
            assert!(M::locate(msr, access, Regressions::NONE).is_some(), "{msr:#x} has no bit");
            assert!(!seen.contains(&(msr, access)), "{access} of {msr:#x} is named twice");
            seen.push((msr, access));
        }
    }
}

#[test]
fn every_row_names_msrs_with_a_bit_and_no_access_twice() {
    rows_are_in_range_and_disjoint::<Msrpm>();
    rows_are_in_range_and_disjoint::<MsrBitmap>();
}
