//! `hodei-worker --folder DIR`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.iter().map(|arg| arg.to_str()).collect::<Vec<_>>()[..] {
        [Some("--folder"), _] => return hodei_worker_bin::run(args[1].as_ref()),
        [Some("--version")] => println!("hodei-worker {}", env!("CARGO_PKG_VERSION")),
        [Some("--help")] => println!("Usage: hodei-worker --folder DIR < BOOTSTRAP_DOCUMENT"),
        _ => {
            return (
                eprintln!("Usage: hodei-worker --folder DIR"),
                std::process::ExitCode::from(2),
            )
                .1;
        }
    }
    std::process::ExitCode::SUCCESS
}
