//! The client of KVM, built as a program that needs nothing of the system that it runs on.

use std::path::Path;
use std::process::Command;

use crate::documents::{cargo, root};

use super::initramfs::read;

/// The client's bytes; cargo keeps what it builds in `folder`.
pub(super) fn build(folder: &Path) -> Result<Vec<u8>, String> {
    let target = folder.join("client");
    let mut command = Command::new(cargo());
    command
        .args(["rustc", "--quiet", "--release", "--package", "rootmode-client", "--target-dir"])
        .arg(&target);
    command.args([
        "--",
        "-C",
        "target-feature=+crt-static",
        "-C",
        "relocation-model=static",
        "-C",
        "strip=symbols",
    ]);
    // It is a program of its own: what the environment says is meant for this one (a linker that gets thread-local storage of
    // static programs wrong, for instance).
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output =
        command.current_dir(root()).output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the client: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    read(&target.join("release/rootmode-client"))
}
