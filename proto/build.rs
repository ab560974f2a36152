//! Generates the gRPC code from `proto/hodei/v1`, without a system protoc.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 5] = [
    "hodei/v1/types.proto",
    "hodei/v1/job_execution.proto",
    "hodei/v1/scheduler.proto",
    "hodei/v1/log_stream.proto",
    "hodei/v1/worker_agent.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".hodei.v1.OutputPiece.data")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
