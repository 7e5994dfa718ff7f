//! The binary `wharf`: see [`wharf::cli`].

use std::process::ExitCode;

/// Steadier in long runs than the system's allocator, and far faster than musl's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    wharf::cli::main()
}
