//! The `chronik` executable: the library's command line, with the allocator that the broker was measured with.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    chronik_api::cli::main()
}
