//! The `xpush` program: a server, and the tools to speak with one.

mod bench;
mod cli;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use mimalloc::MiMalloc;

/// A message costs a server some small pieces of memory, taken by one thread and given back by another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) if error.is::<cli::ReadEnough>() => ExitCode::SUCCESS,
        Err(error) => {
            // One line with what happened and its causes: an operator reads it in a journal.
            eprintln!("xpush: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { command, serve } = cli;
    match command {
        None => block_on(serve::run(serve)),
        Some(Command::Serve(flags)) => block_on(serve::run(*flags)),
        Some(Command::Publish(args)) => block_on(cli::publish::run(args)),
        Some(Command::Subscribe(args)) => block_on(cli::subscribe::run(args)),
        Some(Command::History(args)) => block_on(cli::history::run(args)),
        Some(Command::Token(args)) => cli::token::run(&args),
        Some(Command::Channel(args)) => block_on(cli::channel::run(args)),
        Some(Command::App(args)) => block_on(cli::app::run(args)),
        Some(Command::User(args)) => block_on(cli::user::run(args)),
        Some(Command::Device(args)) => block_on(cli::device::run(args)),
        Some(Command::Node(args)) => block_on(cli::node::run(args)),
        Some(Command::Config(args)) => cli::config::run(&args),
        Some(Command::Bench(args)) => block_on(bench::run(args)),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "xpush", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
