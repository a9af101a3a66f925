//! Compiles the example's .proto, in pure Rust. The library itself has none of its own.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=examples/greeter/greeter.proto");
    let descriptors = protox::compile(["greeter.proto"], ["examples/greeter"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("greeter.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
