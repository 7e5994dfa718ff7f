//! The binary `wharf`: everything is in the library, so that tests run the same code.

use std::process::ExitCode;

// The system's allocator grows without end under many threads with musl, and keeps more than it gives back with glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    wharf::cli::main()
}
