//! EXITINFO1 of a nested page fault (APM Vol. 2 (24593 rev. 3.43) "Nested versus Guest Page Faults, Fault Ordering").

use rootmode_arch::bits;
use rootmode_arch::event::GuestPhysicalAccess;

bits! {
    /// The fault's error code. EXITINFO2 is the guest-physical address.
    pub struct NpfInfo(u64) {
        PRESENT = 0, "the nested page was present";
        WRITE = 1, "the access was a write; walks of guest page tables are";
        USER = 2, "the access was a user access; all are but fetches at CPL 0 to 2 under the guest mode execute trap";
        RESERVED = 3, "a reserved bit of a nested page-table entry was set";
        FETCH = 4, "the access was an instruction fetch";
        SHADOW_STACK = 6, "the access was a shadow-stack access";
        FINAL = 32, "while translating the final guest-physical address";
        TABLE_WALK = 33, "while translating an address of the guest's page tables";
        SUPERVISOR_SHADOW_STACK = 37, "the page is marked as a supervisor shadow stack";
    }
}

impl NpfInfo {
    /// What is reported of `access`. With read-only guest page tables, walks are writes only when they are.
    pub const fn new(access: &GuestPhysicalAccess, read_only_tables: bool) -> Self {
        let present = access.misconfigured || access.permissions & 1 != 0 || access.entry & 1 != 0;
        let write = if access.table_walk { access.write || !read_only_tables } else { access.write };
        Self(0)
            .set(Self::USER, !access.supervisor_fetch)
            .set(Self::PRESENT, present)
            .set(Self::WRITE, write)
            .set(Self::RESERVED, access.misconfigured)
            .set(Self::FETCH, access.fetch && !access.table_walk)
            .set(Self::FINAL, !access.table_walk)
            .set(Self::TABLE_WALK, access.table_walk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_page_under_cr3_faults_as_a_user_write_during_the_walk() {
        let walk = GuestPhysicalAccess {
            read: true,
            table_walk: true,
            permissions: 5,
            entry: 5,
            ..Default::default()
        };
        assert_eq!(NpfInfo::new(&walk, false).0, 0x2_0000_0007);
        assert_eq!(NpfInfo::new(&walk, true).0, 0x2_0000_0005, "read-only tables: no A or D bit was due");
    }

    #[test]
    fn final_accesses_say_what_they_are() {
        let fetch = GuestPhysicalAccess { fetch: true, permissions: 3, ..Default::default() };
        assert_eq!(NpfInfo::new(&fetch, false).0, 0x1_0000_0015);
        let trapped = GuestPhysicalAccess { supervisor_fetch: true, ..fetch };
        assert_eq!(NpfInfo::new(&trapped, false).0, 0x1_0000_0011);
        let absent = GuestPhysicalAccess { write: true, ..Default::default() };
        assert_eq!(NpfInfo::new(&absent, false).0, 0x1_0000_0006);
        let reserved = GuestPhysicalAccess { read: true, misconfigured: true, ..Default::default() };
        assert_eq!(NpfInfo::new(&reserved, false).0, 0x1_0000_000d);
    }
}
