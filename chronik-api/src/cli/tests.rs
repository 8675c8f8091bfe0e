//! What the command line accepts.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_it_serves_with_the_same_options() {
    for line in ["chronik --set node.id=2 --set a=b", "chronik serve --set node.id=2 --set a=b"] {
        let cli = parse(line).expect(line);
        let args = match cli.command {
            None => cli.serve,
            Some(Command::Serve(args)) => args,
            Some(other) => panic!("{line} is {other:?}"),
        };
        assert_eq!(args.set, ["node.id=2", "a=b"]);
    }
}

#[test]
fn bench_hands_everything_on() {
    let Some(Command::Bench(_)) = parse("chronik bench produce --quick --bootstrap x:1").expect("right").command else {
        panic!("it is bench");
    };
    assert!(parse("chronik bench --help").is_ok(), "its own help is chronik-bench's");
}

#[test]
fn what_later_versions_bring_is_no_command_yet() {
    for line in ["chronik dev", "chronik plugin check x", "chronik cluster"] {
        assert!(parse(line).is_err(), "{line}");
    }
}
