//! Sets `--cfg loom` for this package alone; its dependencies stay as they are.

fn main() {
    println!("cargo:rustc-cfg=loom");
    println!("cargo:rerun-if-changed=build.rs");
}
