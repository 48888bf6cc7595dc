//! The little AML that a machine needs: the PCI root with its interrupt-less bus, COM1, and the sleep type of S5.

/// A package length in the encoding of AML "Package Length Encoding", which counts itself.
fn package(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = opcode.to_vec();
    if body.len() < 0x3f {
        bytes.push(body.len() as u8 + 1);
    } else {
        let length = body.len() + 2;
        bytes.extend([0x40 | (length & 15) as u8, (length >> 4) as u8]);
    }
    bytes.extend(body);
    bytes
}

/// `Name (name, object)`.
fn name(name: &[u8], object: &[u8]) -> Vec<u8> {
    [&[0x08], name, object].concat()
}

/// An EISA identification: three letters and four digits, compressed as "EISAID" says, as a DWord constant.
fn eisa_id(id: &[u8; 7]) -> Vec<u8> {
    let letter = |i: usize| u32::from(id[i] - 0x40) & 0x1f;
    let digit = |i: usize| (char::from(id[i]).to_digit(16)).unwrap_or(0);
    let value = letter(0) << 26
        | letter(1) << 21
        | letter(2) << 16
        | digit(3) << 12
        | digit(4) << 8
        | digit(5) << 4
        | digit(6);
    [&[0x0c][..], &value.to_be_bytes()].concat()
}

/// A resource template: its descriptors, closed by an end tag without checksum, in a buffer.
fn resources(descriptors: &[&[u8]]) -> Vec<u8> {
    let mut body = descriptors.concat();
    body.extend([0x79, 0]);
    let length = body.len() as u8;
    package(&[0x11], &[&[0x0a, length][..], &body].concat())
}

/// I/O ports, decoded in 16 bits.
fn ports(base: u16, length: u8) -> Vec<u8> {
    let [low, high] = base.to_le_bytes();
    vec![0x47, 1, low, high, low, high, 1, length]
}

/// A word address space of I/O ports that the bridge passes on.
fn port_window(first: u16, last: u16) -> Vec<u8> {
    let mut bytes = vec![0x88, 0x0d, 0x00, 0x01, 0x0c, 0x03];
    for value in [0, first, last, 0, last - first + 1] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// A double-word address space of memory that the bridge passes on.
fn memory_window(first: u32, last: u32) -> Vec<u8> {
    let mut bytes = vec![0x87, 0x17, 0x00, 0x00, 0x0c, 0x01];
    for value in [0, first, last, 0, last - first + 1] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// The bus numbers behind the bridge.
fn bus_window() -> Vec<u8> {
    let mut bytes = vec![0x88, 0x0d, 0x00, 0x02, 0x0c, 0x00];
    for value in [0_u16, 0, 0xff, 0, 0x100] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// The body of the DSDT.
pub(super) fn dsdt() -> Vec<u8> {
    let com1 = package(
        &[0x5b, 0x82],
        &[
            b"COM1".to_vec(),
            name(b"_HID", &eisa_id(b"PNP0501")),
            name(b"_UID", &[0x01]),
            // IRQ 4 as a short descriptor without information.
            name(b"_CRS", &resources(&[&ports(0x3f8, 8), &[0x22, 0x10, 0x00]])),
        ]
        .concat(),
    );
    let windows = resources(&[
        &bus_window(),
        &ports(0xcf8, 8),
        &port_window(0, 0x0cf7),
        &port_window(0x0d00, 0xffff),
        &memory_window(0xc000_0000, 0xfebf_ffff),
    ]);
    let root = package(
        &[0x5b, 0x82],
        &[
            b"PCI0".to_vec(),
            name(b"_HID", &eisa_id(b"PNP0A03")),
            name(b"_UID", &[0x00]),
            name(b"_CRS", &windows),
            com1,
        ]
        .concat(),
    );
    let system_bus = package(&[0x10], &[b"\\_SB_".to_vec(), root].concat());
    // Package () { 0, 0, 0, 0 }
    let sleep = package(&[0x12], &[4, 0, 0, 0, 0]);
    [system_bus, name(b"\\_S5_", &sleep)].concat()
}
